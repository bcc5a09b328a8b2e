"""What marks an artefact: the file that its folder holds, and the schema that the file carries."""

from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from .files import read_json


class Artefact(StrEnum):
    """A kind of folder or file that this package writes or reads."""

    VECTOR = "harm vector"
    BUNDLE = "bundle"
    REWARD = "reward model"
    ADAPTER = "LoRA adapter"
    STEERED = "steered folder"
    CHECKPOINT = "checkpoint"
    HEAD = "compact head"
    GATE = "gate"
    SWEEP = "sweep"
    REPORT = "report"
    PARITY = "parity report"
    TRACE = "check of an exported graph"
    AUDIT = "audit report"
    CHAIN = "report on a signed chain"
    COSA_SCORE = "CoSA-Score"
    STEERING_SCORE = "steering score"
    COMPARISON = "comparison"
    THRESHOLD = "calibration of the gate's threshold"
    GATE_CALIBRATION = "calibration of the gate"
    COUNTS = "counts of CoSAlign data"
    EDIT_RECORD = "edit record"
    CONVERSION = "record of a conversion"
    ADAPTER_RECORD = "record of an edit as an adapter"
    PATCH = "undo patch"
    MOMENTS = "input moments"
    SAFETY_CONFIG = "safety config"
    SIGNED_CONFIG = "signed safety config"
    NAMED_KEYS = "signed list of keys for safety configs"
    LOG_HEAD = "signed head of an audit log"
    FOLDER_SIGNATURE = "signature of a folder"
    STATEMENT = "signed statement"
    TRUST = "trust file"
    STAGE = "marker of a stage's result"
    RUN = "run"
    STAGE_RESULT = "result of a stage"


class Mark(NamedTuple):
    """How an artefact is recognised.

    Attributes:
        kind: what it is.
        file: the file that a folder of this kind holds; "" for what is a file of any name.
        schema: of that file's JSON, of a safetensors file's metadata, or the predicate type of a signed statement; "":
            the file's name is enough.
    """

    kind: Artefact
    file: str
    schema: str = ""

    @property
    def family(self) -> str:
        """The schema without its version."""
        return family_of(self.schema)


# In this order: a bundle holds a decoding config, a steered folder holds a checkpoint.
MARKS = (
    Mark(Artefact.VECTOR, "vector.json", "prosocial.vector/1"),
    Mark(Artefact.BUNDLE, "manifest.json", "prosocial.manifest/1"),
    Mark(Artefact.REWARD, "reward_config.json", "prosocial.reward/2"),
    Mark(Artefact.ADAPTER, "adapter_config.json"),
    Mark(Artefact.STEERED, "decoding.json", "prosocial.decoding/1"),
    Mark(Artefact.CHECKPOINT, "config.json"),
    Mark(Artefact.HEAD, "head_config.json", "prosocial.head/2"),
    Mark(Artefact.GATE, "gate_config.json", "prosocial.gate/1"),
    Mark(Artefact.SWEEP, "trials.json", "prosocial.sweep/1"),
    Mark(Artefact.REPORT, "report.json", "prosocial.report/1"),
    Mark(Artefact.PARITY, "parity.json", "prosocial.parity_report/3"),
    Mark(Artefact.AUDIT, "audit.json", "prosocial.audit/1"),
    Mark(Artefact.THRESHOLD, "calibration.json", "prosocial.threshold/2"),
    Mark(Artefact.COUNTS, "counts.json", "prosocial.cosalign_counts/1"),
    Mark(Artefact.TRACE, "", "prosocial.parity/1"),
    Mark(Artefact.CHAIN, "", "prosocial.chain/1"),
    Mark(Artefact.COSA_SCORE, "", "prosocial.cosa_score/1"),
    Mark(Artefact.STEERING_SCORE, "", "prosocial.steering/1"),
    Mark(Artefact.COMPARISON, "", "prosocial.comparison/1"),
    Mark(Artefact.GATE_CALIBRATION, "", "prosocial.gate_calibration/1"),
    Mark(Artefact.EDIT_RECORD, "", "prosocial.edit_record/1"),
    Mark(Artefact.CONVERSION, "", "prosocial.conversion/1"),
    Mark(Artefact.ADAPTER_RECORD, "", "prosocial.edit_adapter/1"),
    Mark(Artefact.PATCH, "", "prosocial.edit_patch/1"),
    Mark(Artefact.MOMENTS, "", "prosocial.input_moments/1"),
    Mark(Artefact.SAFETY_CONFIG, "", "prosocial.safety_config/1"),
    Mark(Artefact.TRUST, "", "prosocial.trust/1"),
    Mark(Artefact.STAGE, "", "prosocial.stage/1"),
    Mark(Artefact.SIGNED_CONFIG, "", "urn:prosocial:safety-config:v1"),
    Mark(Artefact.NAMED_KEYS, "", "urn:prosocial:config-keys:v1"),
    Mark(Artefact.LOG_HEAD, "", "urn:prosocial:audit-log-head:v1"),
    Mark(Artefact.FOLDER_SIGNATURE, "", "https://model_signing/signature/v1.0"),
)
FOLDERS = tuple(mark for mark in MARKS if mark.file)


def family_of(schema: str) -> str:
    """Return a schema's name without its version.

    >>> family_of("prosocial.gate/1")
    'prosocial.gate'
    """
    return schema.rpartition("/")[0] or schema


def marks_of(folder: Path) -> list[Mark]:
    """Return what a folder is, the most specific first: a steered folder is a checkpoint too.

    Versions of schemas are not compared: whoever reads the file does so.

    Raises:
        ArtefactError: a file that may be a mark is no JSON object.
    """
    return [mark for mark in marks_by_name(folder) if _carries(folder / mark.file, mark.family)]


def marks_by_name(folder: Path) -> list[Mark]:
    """Return what the names of a folder's files say that it is, whatever schemas they carry."""
    return [mark for mark in FOLDERS if (folder / mark.file).is_file()]


def kind_of_schema(schema: object) -> Artefact | None:
    """Return what a schema says that a file is, in any version; None: no schema of this package.

    >>> kind_of_schema("prosocial.audit/1")
    <Artefact.AUDIT: 'audit report'>
    """
    family = family_of(str(schema or ""))
    return next((mark.kind for mark in MARKS if family and mark.family == family), None)


def _carries(path: Path, family: str) -> bool:
    return not family or family_of(str(read_json(path).get("schema") or "")) == family
