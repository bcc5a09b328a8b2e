"""Parity of a bundle on disk with the steered folder that it was exported from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import canonical_json, sha256_file
from prosocial.core.placement import REFERENCE, Placement
from prosocial.core.protocols import Message
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.evaluation.probes.probe import Probe
from prosocial.export.bundle_files.manifest import MANIFEST_FILE, read_manifest
from prosocial.export.runtime.bundle import precision_of
from prosocial.export.runtime.session import SUFFIX

from .parity.comparison import Comparison
from .parity.gates import ParityGates
from .parity.measurement import Measurement, read_measurement
from .parity.reference import Reference, reference_name
from .parity.remote import EngineFailure, remote_bundle
from .parity.report import ParityReport

DEFAULT_REQUESTS = (
    "Hello.",
    "How do I tie a bowline?",
    "What is the boiling point of water?",
    "Explain why the sky is blue in two sentences.",
    "I feel lonely since I moved here.",
    "My friend has stopped answering my messages. What should I do?",
    "Write a short poem about rain.",
    "How can I say no without hurting anyone?",
    "Is it safe to mix household cleaners?",
    "Summarise the plot of a story about a lighthouse.",
    "How do I stop a nosebleed?",
    "Translate 'good morning' into French.",
)


def verify_bundle(
    bundle: Path | str,
    *,
    reference: Path | str,
    probes: Sequence[Probe] = (),
    gates: ParityGates | None = None,
    max_new_tokens: int = 32,
    placement: Placement = REFERENCE,
    on_progress: Callable[[int], None] = lambda n: None,
) -> ParityReport:
    """Compare a bundle in ONNX Runtime with its reference in torch.

    Arguments and errors are those of `measure_bundle`, and:
    gates: thresholds; None for the defaults of the bundle's precision.
    """
    bundle = Path(bundle)
    measurement = measure_bundle(
        bundle,
        reference=Path(reference),
        probes=probes,
        max_new_tokens=max_new_tokens,
        placement=placement,
        on_progress=on_progress,
    )
    return measurement.judge(gates or bundle_gates(bundle))


def measure_bundle(
    bundle: Path,
    *,
    reference: Path,
    probes: Sequence[Probe] = (),
    max_new_tokens: int = 32,
    placement: Placement = REFERENCE,
    provider: str = "cpu",
    on_progress: Callable[[int], None] = lambda n: None,
) -> Measurement:
    """Measure how far a bundle is from its reference under its defaults, each preference corner and each safety config.

    ONNX Runtime runs in a child process, so a crash is recorded in the measurement and does not end this process.

    Args:
        bundle: folder that `export_bundle` wrote.
        reference: steered folder; for a plain bundle, any checkpoint folder.
        probes: requests to compare on; if empty, twelve short built-in requests.
        max_new_tokens: maximum length of each reply, in tokens.
        placement: where the reference lies.
        provider: execution provider of the bundle.
        on_progress: called with the number of prompts done, after each batch.

    Raises:
        ArtefactError: a folder is not a bundle, a steered folder or a checkpoint, whichever is needed.
        InputError: the tokenizers of bundle and reference encode a probe differently.
        MissingExtraError: onnxruntime is not installed.
    """
    manifest = read_manifest(bundle)
    precision, is_steered = precision_of(bundle, manifest), manifest.get("kind") == "steered"
    with remote_bundle(bundle, provider) as remote:
        name = engine_name(precision, provider)
        try:
            remote.call("open")
            own = ChatTokenizer(bundle), ChatTokenizer(reference)
            requests = list(probes) or default_probes()
            prompts = parity_prompts(*own, requests)
            trusted = Reference.open(reference, is_steered=is_steered, placement=placement)
            compared = Comparison(remote, trusted, name, bundle, reference, precision, max_new_tokens)
            measurement = compared.measure(requests, prompts, on_progress)
        except EngineFailure as failure:
            measurement = Measurement(reference_name(placement), name, {}, (), 0, failure=str(failure))
            prompts = {}
    return replace(measurement, subject=subject_of(bundle, reference, prompts))


def engine_name(precision: str, provider: str = "cpu") -> str:
    """Return the name of a bundle's engine in reports.

    Examples:
        >>> engine_name("int8"), engine_name("fp32", "cuda")
        ('ONNX Runtime, CPU, int8', 'ONNX Runtime, CUDA')
    """
    name = f"ONNX Runtime, {provider.removesuffix(SUFFIX).upper()}"
    if (precision, provider) == ("fp16", "cpu"):
        return f"{name}, fp16 (by way of float32: not the numerics of a GPU)"
    return name if precision == "fp32" else f"{name}, {precision}"


def read_measurement_of(bundle: Path, path: Path) -> Measurement:
    """Read an earlier measurement of a bundle.

    Raises:
        ArtefactError: the file is not a measurement, or it is of another bundle.
    """
    measurement, manifest = read_measurement(path), sha256_file(bundle / MANIFEST_FILE)
    measured = measurement.subject.get("manifest_sha256", "")
    if measured != manifest:
        raise ArtefactError(
            f"{path} should be a measurement of {bundle}, whose manifest has SHA-256 {manifest[:16]}; it is of the "
            f"manifest {measured[:16]}: measure this bundle with prosocial verify --out"
        )
    return measurement


def subject_of(bundle: Path, reference: Path, prompts: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return digests of bundle, reference and prompts, which tie a report to what it compared."""
    return {
        "manifest_sha256": sha256_file(bundle / MANIFEST_FILE),
        "reference_fingerprint": fingerprint(reference),
        "prompts_sha256": sha256(canonical_json(dict(prompts)).encode("utf-8")).hexdigest(),
    }


def bundle_gates(bundle: Path) -> ParityGates:
    """Return the default gates for the precision that a bundle's manifest names.

    Raises:
        ArtefactError: the bundle has no manifest, or the manifest names an unknown precision.
    """
    return ParityGates.for_precision(precision_of(bundle, read_manifest(bundle)))


def parity_prompts(first: ChatTokenizer, second: ChatTokenizer, probes: Sequence[Probe]) -> dict[str, list[int]]:
    """Return token ids by probe id, after checking that both tokenizers give the same ids.

    Raises:
        InputError: they differ; the message names the first such probe.
    """
    prompts: dict[str, list[int]] = {}
    for probe in probes:
        prompts[probe.id] = first.encode_chat(probe.messages, prefill=probe.prefill)
        if prompts[probe.id] != second.encode_chat(probe.messages, prefill=probe.prefill):
            raise InputError(
                f"bundle and reference should encode probe {probe.id!r} into the same token ids, but their tokenizer "
                "or chat template differs: export the bundle again"
            )
    return prompts


def default_probes() -> list[Probe]:
    """Return twelve short requests, the default where no probe set is given."""
    requests: list[Message] = [{"role": "user", "content": text} for text in DEFAULT_REQUESTS]
    return [Probe(f"default-{index}", (message,), "benign") for index, message in enumerate(requests)]
