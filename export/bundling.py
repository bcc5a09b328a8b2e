"""Export of a steered folder to a self-contained bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.chat import TOKENIZER_FILES, ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import new_folder, require_new, storage_errors, write_json
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig

from .bundle_files.card import bundle_card, prompt_notes
from .bundle_files.genai_config import genai_config
from .bundle_files.manifest import write_manifest
from .bundle_files.precision import PRECISIONS, PROFILES, QUANTISED, Precision, Profile, departure_sentence
from .bundle_files.prompt_record import PROMPT_RECORD, record_prompts
from .presets import write_presets

if TYPE_CHECKING:
    from .graph.wrapper import PlainGraph, SteeredGraph

COPIED = (*TOKENIZER_FILES, "config.json", "generation_config.json", "edit_record.json", DECODING_FILE)


def export_bundle(
    steered: Path | str,
    out: Path | str,
    *,
    profile: Profile = "ort",
    precision: Precision = "fp32",
    plain: bool = False,
) -> dict[str, Any]:
    """Export a steered folder to a bundle and return the manifest.

    Before `out` is created, the prompts of a few conversations are compared with transformers', and the float32 graph
    with the torch model. `prompts.json` and `parity.json` record the results; for a lower precision, the latter has its
    difference from the float32 graph too.

    Args:
        steered: folder written by `assemble_steered`; with `plain` any checkpoint folder with a tokenizer.
        out: folder of the bundle; must not exist yet.
        profile: "ort" (GroupQueryAttention) or "portable" (standard operators of opset 23).
        precision: "fp32", "fp16", "int8" or "int4"; the last two need the profile "ort".
        plain: export only the language model, with all logits and without head and gate.

    Raises:
        ArtefactError: a file of the steered folder is missing or broken, or prompts differ from transformers'.
        FingerprintError: head or gate belong to another checkpoint.
        InputError: an option is unknown, the profile does not support the architecture, or `out` exists.
        ProsocialError: the outputs of the graph differ from torch's, or are infinite or NaN.
        MissingExtraError: onnxruntime is not installed.
    """
    steered, out = Path(steered), Path(out)
    _check_options(profile, precision)
    tokenizer, kind = _check_folders(steered, out, plain), "plain" if plain else "steered"
    from .graph.agreement import check_agreement
    from .graph.lowering import lower_precision
    from .graph.trace import trace_graph

    prompts = record_prompts(steered, tokenizer)
    graph = _graph(steered, profile, plain)
    with new_folder(out) as folder:
        traced = trace_graph(graph, folder)
        parity = check_agreement(traced.path, graph).as_json() | {"profile": profile, "precision": precision}
        if precision != "fp32":
            parity |= lower_precision(graph, traced.path, precision).as_json(precision)
        with storage_errors(folder):
            for name in COPIED:
                if (steered / name).is_file() and not (plain and name == DECODING_FILE):
                    (folder / name).write_bytes((steered / name).read_bytes())
        if not plain:
            write_presets(folder, DecodingConfig.read(folder))
        write_json(folder / "genai_config.json", genai_of(graph, tokenizer, precision))
        write_json(folder / PROMPT_RECORD, prompts)
        write_json(folder / "parity.json", parity)
        with storage_errors(folder):
            measured, notes = departure_sentence(parity), prompt_notes(tokenizer)
            card = bundle_card(kind=kind, profile=profile, precision=precision, measured=measured, notes=notes)
            (folder / "README.md").write_text(card, encoding="utf-8")
        facts = {
            "kind": kind,
            "profile": profile,
            "precision": precision,
            "opset": traced.opset,
            "context_length": graph.body.backbone.context_length,
            "checkpoint_fingerprint": _fingerprint(steered),
            "shared_tensors": list(traced.shared_tensors),
            "takes_system": tokenizer.takes_system,
            "role_markers": list(tokenizer.role_markers),
        }
        return write_manifest(folder, facts=facts)


def _check_options(profile: Profile, precision: Precision) -> None:
    if profile not in PROFILES:
        raise InputError(f"profile should be one of {', '.join(PROFILES)}, found {profile!r}")
    if precision not in PRECISIONS:
        raise InputError(f"precision should be one of {', '.join(PRECISIONS)}, found {precision!r}")
    if profile == "portable" and precision in QUANTISED:
        raise InputError(
            f"precision {precision} needs an operator of ONNX Runtime that profile 'portable' lacks: use profile ort"
        )


def _check_folders(steered: Path, out: Path, plain: bool) -> ChatTokenizer:
    """Check what can be checked before torch is imported, which takes seconds; return the tokenizer."""
    from prosocial.editing.checkpoints import Checkpoint

    require_new(out)
    if not plain and not (steered / DECODING_FILE).is_file():
        raise ArtefactError(
            f"{steered} should be a steered folder with {DECODING_FILE}, found none: use --plain for the model alone"
        )
    Checkpoint.open(steered)
    return ChatTokenizer(steered)


def _graph(folder: Path, profile: Profile, plain: bool) -> "PlainGraph | SteeredGraph":
    from prosocial.editing.checkpoints import load_model
    from prosocial.steering.backbone import Backbone
    from prosocial.steering.steered_model import SteeredModel

    from .graph.wrapper import PlainGraph, SteeredGraph

    if plain:
        return PlainGraph(Backbone(load_model(folder)), profile).eval()
    return SteeredGraph(SteeredModel.open(folder), profile).eval()


def _fingerprint(folder: Path) -> str:
    from prosocial.editing.checkpoints import Checkpoint

    return Checkpoint.open(folder).fingerprint()


def genai_of(graph: "PlainGraph | SteeredGraph", tokenizer: ChatTokenizer, precision: Precision) -> dict[str, Any]:
    """Return the content of `genai_config.json` for a graph, which depends on the model and its tokenizer alone."""
    body = graph.body
    text = body.backbone.model.config.get_text_config()
    size, hidden_size = body.backbone.output_weight.shape
    begin = getattr(text, "bos_token_id", None)
    return genai_config(
        n_layers=body.n_layers,
        n_kv_heads=body.n_kv_heads,
        n_heads=int(text.num_attention_heads),
        head_size=body.head_size,
        hidden_size=int(hidden_size),
        vocabulary_size=int(size),
        context_length=body.backbone.context_length,
        end_ids=tokenizer.end_ids,
        begin_id=begin if isinstance(begin, int) else None,
        pad_id=tokenizer.pad_id,
        shares_cache=body.profile == "ort",
        precision=precision,
    )
