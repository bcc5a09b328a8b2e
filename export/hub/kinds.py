"""What a folder to be published holds, read from the records in it."""

from enum import StrEnum
from pathlib import Path

from prosocial.core.artefacts import Artefact, marks_by_name
from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints.header import read_header
from prosocial.editing.checkpoints.sides import list_files
from prosocial.editing.edits.record import RECORD_NAME
from prosocial.editing.vectors.adapter_config import SUBTRACTS_KEY, WEIGHTS_NAME
from prosocial.editing.vectors.description import DESCRIPTION_NAME

from ..bundle_files.manifest import MANIFEST_FILE, read_manifest

ADAPTER_RECORD = "edit_adapter.json"
REWARD_CONFIG = "reward_config.json"


class Kind(StrEnum):
    """An artefact by what its records say.

    Attributes:
        BUNDLE, CHECKPOINT, ADAPTER, REWARD: what is published.
        VECTOR: what was subtracted. HARMFUL: weights of which no record says that they subtract harm.
    """

    BUNDLE = "bundle"
    CHECKPOINT = "edited checkpoint"
    ADAPTER = "adapter"
    REWARD = "reward model"
    VECTOR = "harm vector"
    HARMFUL = "harmful weights"

    @property
    def is_dual_use(self) -> bool:
        """Whether it makes a model harmful in somebody's hands."""
        return self in (Kind.VECTOR, Kind.HARMFUL)


def identify(folder: Path) -> Kind:
    """Return what a folder holds; what no record accounts for counts as harmful.

    Raises:
        ArtefactError: there is no such folder, or it holds no artefact that could be published.
    """
    if not folder.is_dir():
        raise ArtefactError(f"expected a folder at {folder}: there is none")
    if any(Path(path).name == DESCRIPTION_NAME for path in list_files(folder)):
        return Kind.VECTOR
    match next((mark.kind for mark in marks_by_name(folder)), None):
        case Artefact.BUNDLE:
            return Kind.BUNDLE if _is_accounted_for(folder) else Kind.HARMFUL
        case Artefact.REWARD:
            return Kind.REWARD
        case Artefact.ADAPTER:
            return Kind.ADAPTER if _subtracts(folder) else Kind.HARMFUL
        case Artefact.STEERED:
            raise ArtefactError(f"{folder} is a steered folder: publish the bundle that `prosocial export` makes of it")
        case Artefact.CHECKPOINT:
            return Kind.CHECKPOINT if (folder / RECORD_NAME).is_file() else Kind.HARMFUL
        case actual:
            raise ArtefactError(
                f"{folder} should be an edited checkpoint ({RECORD_NAME}), an adapter ({ADAPTER_RECORD}), a reward "
                f"model ({REWARD_CONFIG}) or a bundle ({MANIFEST_FILE}): it is {actual or 'none of these'}"
            )


def _is_accounted_for(folder: Path) -> bool:
    """Whether a bundle has a gate in its graph, or a record of the edit of its weights: the form changes no weights."""
    return read_manifest(folder).get("kind") != "plain" or (folder / RECORD_NAME).is_file()


def _subtracts(folder: Path) -> bool:
    """Whether both the record and the weights of an adapter say that it subtracts harm."""
    said = read_header(folder / WEIGHTS_NAME).metadata.get(SUBTRACTS_KEY)
    return said == "true" and (folder / ADAPTER_RECORD).is_file()
