"""Reading the text of a safety config with a text classifier, which names the harm categories of each clause."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.steering.configs.category_registry import NEVER_ALLOWED, CategoryRegistry
from prosocial.steering.configs.reading import Reading, read_by_clauses

from .sequence_classifier import NOT_FINITE, SequenceClassifier

THRESHOLD = 0.5


class ClassifierReader:
    """Reads a text clause by clause: a classifier gives the categories, the wording whether they are allowed.

    A clause is about a category if a label for it has a probability of at least one half. A category without a label is
    never mentioned, and so stays disallowed.

    Args:
        source: folder or Hub id; only safetensors are read, and no code of the repository is run.
        categories: harm categories of the bundle.
        labels: category by label; a label with the name of a category needs no entry.

    Attributes:
        told: description of which labels map to which categories and which are unused, for those who approve the mask.

    Raises:
        ArtefactError: the source is not a sequence classifier.
        UnknownNameError: the classifier lacks a given label, or the bundle a given category.
        InputError: no label maps to a category.
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
        """Return the categories that a text allows and forbids.

        Raises:
            InputError: a probability is not finite.
        """
        return read_by_clauses(text, self._topics)

    def _topics(self, clause: str) -> list[str]:
        chances = self._classifier.score(clause)
        if chances is None:
            raise InputError(f"{NOT_FINITE} for {clause!r:.80}: use another classifier")
        return [category for index, category in self._categories.items() if chances[index] >= THRESHOLD]


def labelled_categories(
    labels: Mapping[int, str], categories: Sequence[str], given: Mapping[str, str]
) -> dict[int, str]:
    """Return the category that each label maps to, by the label's index.

    Raises:
        UnknownNameError: a given label or category does not exist.
        InputError: no label maps to a category.

    Examples:
        >>> labelled_categories({0: "Violence", 1: "S4", 2: "ok"}, ["violence", "drugs"], {"S4": "drugs"})
        {0: 'violence', 1: 'drugs'}
    """
    for label, category in given.items():
        if label not in labels.values():
            raise UnknownNameError("label of the classifier", label, labels.values())
        if category not in categories:
            raise UnknownNameError("harm category", category, categories)
    by_name = {_plain(category): category for category in categories if category != NEVER_ALLOWED}
    mapped = {index: given.get(label) or by_name.get(_plain(label)) for index, label in labels.items()}
    named = {index: category for index, category in mapped.items() if category is not None}
    if not named:
        raise InputError(
            f"at least one label of the classifier should map to a category ({', '.join(categories)}), found "
            f"{', '.join(labels.values())}: map one, such as --label {next(iter(labels.values()))}={categories[0]}"
        )
    return named


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
