"""A safety config's text read by a text classifier: of which harm categories does each clause speak?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.steering.configs.category_registry import NEVER_ALLOWED, CategoryRegistry
from prosocial.steering.configs.reading import Reading, read_by_clauses

from .sequence_classifier import NOT_FINITE, SequenceClassifier

THRESHOLD = 0.5


class ClassifierReader:
    """Reads a text clause by clause: a classifier says of what a clause speaks, words whether it permits or forbids.

    A clause speaks of a category where the label that stands for it, or one of several, is at least as likely as not.
    What no label stands for is not spoken of, and so stays shut.

    Args:
        source: a folder or an id of the Hub; safetensors only, no code of the repository is run.
        categories: of the bundle. labels: categories by label; a label that has the name of a category stands for it.

    Attributes:
        told: which labels stand for what, and what is left over: for those who approve the mask.

    Raises:
        ArtefactError: the source is no sequence classifier.
        UnknownNameError: a label that the classifier does not have, or a category that the bundle does not have.
        InputError: no label stands for a category.
    """

    def __init__(
        self, source: Path | str, *, categories: Sequence[str], labels: Mapping[str, str] | None = None
    ) -> None:
        self._classifier = SequenceClassifier(source)
        self._categories = labelled_categories(self._classifier.labels, categories, labels or {})
        own = self._classifier.labels
        stands = ", ".join(f"{own[index]} for {category}" for index, category in self._categories.items())
        unread = ", ".join(name for name in categories if name not in {*self._categories.values(), NEVER_ALLOWED})
        ignored = ", ".join(label for index, label in own.items() if index not in self._categories)
        self.told = f"{self._classifier.name} reads {stands}"
        self.told += f"; nothing reads {unread}" if unread else ""
        self.told += f"; labels not used: {ignored}" if ignored else ""

    def __call__(self, text: str, registry: CategoryRegistry) -> Reading:
        """Return what a text says.

        Raises:
            InputError: a probability is not finite.
        """
        return read_by_clauses(text, self._topics)

    def _topics(self, clause: str) -> list[str]:
        chances = self._classifier.score(clause)
        if chances is None:
            raise InputError(f"a classifier should give a number for each label: {NOT_FINITE}, for {clause!r:.80}")
        return [category for index, category in self._categories.items() if chances[index] >= THRESHOLD]


def labelled_categories(
    labels: Mapping[int, str], categories: Sequence[str], given: Mapping[str, str]
) -> dict[int, str]:
    """Return the category that each label stands for, by the label's number.

    Raises:
        UnknownNameError: a given label or category does not exist. InputError: no label stands for any.

    Example:
        >>> labelled_categories({0: "Violence", 1: "S4", 2: "ok"}, ["violence", "drugs"], {"S4": "drugs"})
        {0: 'violence', 1: 'drugs'}
    """
    for label, category in given.items():
        if label not in labels.values():
            raise UnknownNameError("label of the classifier", label, labels.values())
        if category not in categories:
            raise UnknownNameError("harm category", category, categories)
    by_name = {_plain(category): category for category in categories if category != NEVER_ALLOWED}
    found = {index: given.get(label) or by_name.get(_plain(label)) for index, label in labels.items()}
    named = {index: category for index, category in found.items() if category is not None}
    if not named:
        raise InputError(
            f"say which categories ({', '.join(categories)}) the labels stand for, such as "
            f"--label {next(iter(labels.values()))}={categories[0]}: there are {', '.join(labels.values())}"
        )
    return named


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
