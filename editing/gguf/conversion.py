"""A GGUF file as a checkpoint folder: safetensors, config, tokenizer, chat template, end ids, and a record."""

from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from prosocial.core.errors import UnknownNameError
from prosocial.core.files import new_folder, require_new, sha256_file, write_json

from ..checkpoints.folder import SINGLE_NAME, Checkpoint
from .header import GgufHeader, read_gguf_header
from .record import RECORD_NAME, ConversionRecord, Source
from .settings import model_config, require_causal_lm
from .values import require_known_types
from .vocabulary import TEMPLATE, special_ids, write_tokenizer
from .weights import DTYPES, WeightPlan, write_weights


def convert_gguf(
    file: Path | str,
    out: Path | str,
    *,
    dtype: str = "bfloat16",
    progress: Callable[[int, int], None] | None = None,
) -> ConversionRecord:
    """Convert a GGUF file to a checkpoint folder that transformers loads; quantised weights are dequantised.

    The weights are read and written one at a time: at most about six bytes for each element of the largest one are held
    in memory. The file may come from a stranger: its header is checked before anything else reads it.

    Args:
        file: a GGUF file of llama.cpp with a whole causal language model.
        out: the new folder.
        dtype: dtype to write: bfloat16, float16 or float32.
        progress: called with the bytes of the file that are done and their total.

    Raises:
        ArtefactError: the file is damaged, or holds no causal language model that transformers can compute.
        InputError: `out` exists already, the dtype or the architecture is not known, or a weight is not finite in the
            dtype.
        MissingExtraError: the library `gguf` is not installed.
        StorageError: the disk is full, or writing is not permitted.

    Examples:
        >>> convert_gguf("no-such.gguf", "checkpoint")
        Traceback (most recent call last):
        prosocial.core.errors.ArtefactError: expected a GGUF file at no-such.gguf: there is none
    """
    file, out = Path(file), Path(out)
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    require_new(out)
    header = read_gguf_header(file)
    require_causal_lm(header)
    require_known_types(header)
    special = special_ids(header)
    config, unread = model_config(header, special)
    plan, config.dtype = WeightPlan(header, config), dtype
    with new_folder(out) as folder:
        write_tokenizer(header, folder)
        write_weights(plan, folder / SINGLE_NAME, dtype=dtype, progress=progress)
        config.save_pretrained(folder)
        stated = {name: value for name, value in special.items() if value is not None}
        write_json(folder / "generation_config.json", stated)
        record = ConversionRecord(
            libraries={name: version(name) for name in ("gguf", "transformers")},
            source=_source(header),
            dtype=dtype,
            end_ids=special["eos_token_id"] or [],
            has_chat_template=header.text(TEMPLATE) is not None,
            unread=unread,
            fingerprint=Checkpoint.open(folder).fingerprint(),
        )
        write_json(folder / RECORD_NAME, record.to_json())
    return record


def _source(header: GgufHeader) -> Source:
    prefix = "general."
    return Source(
        name=header.file.name,
        sha256=sha256_file(header.file),
        size_bytes=header.file.stat().st_size,
        architecture=header.pairs["general.architecture"],
        n_by_type=dict(sorted(Counter(tensor.kind for tensor in header.tensors.values()).items())),
        general={
            key.removeprefix(prefix): value
            for key, value in header.pairs.items()
            if key.startswith(prefix) and isinstance(value, str)
        },
    )
