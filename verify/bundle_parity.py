"""A bundle on disk against the steered folder it was exported from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from prosocial.editing.chat import ChatTokenizer
from prosocial.editing.errors import InputError
from prosocial.editing.files import canonical_json, sha256_file
from prosocial.editing.fingerprint import fingerprint
from prosocial.editing.protocols import Message
from prosocial.export.bundle import Bundle, precision_of
from prosocial.export.manifest import MANIFEST_FILE, read_manifest

from .parity.engines import ParityEngine
from .parity.gates import ParityGates
from .parity.graph_margins import GraphMargins
from .parity.measure import ParityReport, measure_parity
from .parity.stepping import SteppingEngine
from .probes import Probe

ENGINE_NAMES = {
    "fp32": "ONNX Runtime, CPU",
    "fp16": "ONNX Runtime, CPU, fp16 (by way of float32: not the numerics of a GPU)",
    "int8": "ONNX Runtime, CPU, int8",
    "int4": "ONNX Runtime, CPU, int4",
}
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
    bundle: Path,
    *,
    reference: Path,
    probes: Sequence[Probe] = (),
    gates: ParityGates | None = None,
    max_new_tokens: int = 32,
    on_progress: Callable[[int], None] = lambda n: None,
) -> ParityReport:
    """Compare a bundle in ONNX Runtime with its reference in torch.

    Args:
        bundle: folder of `export_bundle`.
        reference: the steered folder; for a plain bundle any checkpoint folder.
        probes: requests to compare on; none: twelve short ones.
        gates: thresholds; None: the defaults for the bundle's precision.
        max_new_tokens: length of the replies.
        on_progress: is told the number of prompts done, now and then.

    Raises:
        ArtefactError: a folder is not what it should be.
        InputError: the tokenizers of both give different ids.
        MissingExtraError: onnxruntime is not installed.
    """
    opened = Bundle.open(bundle)
    tokenizer = ChatTokenizer(reference)
    prompts = parity_prompts(opened.tokenizer, tokenizer, probes or default_probes())
    precision = precision_of(bundle, opened.manifest)
    gates = gates or ParityGates.for_precision(precision)
    under_test = SteppingEngine(
        opened.engine,
        name=ENGINE_NAMES[precision],
        end_ids=opened.tokenizer.end_ids,
        margins=GraphMargins(opened) if opened.config and gates.are_bands_measured else None,
    )
    trusted = reference_engine(reference, is_steered=opened.config is not None)
    report = measure_parity(
        trusted,
        under_test,
        prompts,
        gates=gates,
        max_new_tokens=max_new_tokens,
        on_progress=on_progress,
    )
    return replace(report, subject=subject_of(bundle, reference, prompts))


def subject_of(bundle: Path, reference: Path, prompts: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the digests of what is compared, so that a report cannot be taken for another bundle's."""
    return {
        "manifest_sha256": sha256_file(bundle / MANIFEST_FILE),
        "reference_fingerprint": fingerprint(reference),
        "prompts_sha256": sha256(canonical_json(dict(prompts)).encode("utf-8")).hexdigest(),
    }


def bundle_gates(bundle: Path) -> ParityGates:
    """Return the default gates for the precision that a bundle's manifest names.

    Raises:
        ArtefactError: there is no manifest, or no such precision.
    """
    return ParityGates.for_precision(precision_of(bundle, read_manifest(bundle)))


def reference_engine(folder: Path, *, is_steered: bool) -> ParityEngine:
    """Open the torch side: a steered model with margins, or the plain model of a checkpoint.

    Raises:
        ArtefactError: the folder is not what it should be.
    """
    from prosocial.export.torch_engine import PlainEngine, SteeredEngine

    end_ids = ChatTokenizer(folder).end_ids
    if not is_steered:
        from prosocial.editing.checkpoints import load_model

        return SteppingEngine(PlainEngine(load_model(folder)), name="PyTorch, float32", end_ids=end_ids)
    from prosocial.export.steered import SteeredModel

    from .parity.steered_margins import SteeredMargins

    steered = SteeredModel.open(folder)
    return SteppingEngine(
        SteeredEngine(steered), name="PyTorch, float32", end_ids=end_ids, margins=SteeredMargins(steered)
    )


def parity_prompts(first: ChatTokenizer, second: ChatTokenizer, probes: Sequence[Probe]) -> dict[str, list[int]]:
    """Return token ids by probe id, after checking that both tokenizers give the same.

    Raises:
        InputError: they do not; names the first probe.
    """
    prompts: dict[str, list[int]] = {}
    for probe in probes:
        prompts[probe.id] = first.encode_chat(probe.messages, prefill=probe.prefill)
        if prompts[probe.id] != second.encode_chat(probe.messages, prefill=probe.prefill):
            raise InputError(
                f"bundle and reference should encode probe {probe.id!r} into the same ids, they do not: their "
                "tokenizer or chat template differs; export the bundle again"
            )
    return prompts


def default_probes() -> list[Probe]:
    """Return twelve short requests, for a comparison without a probe set."""
    requests: list[Message] = [{"role": "user", "content": text} for text in DEFAULT_REQUESTS]
    return [Probe(f"default-{index}", (message,), "benign") for index, message in enumerate(requests)]
