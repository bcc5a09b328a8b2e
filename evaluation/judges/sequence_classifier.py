"""Any sequence classifier of the Hub, as probabilities of its labels."""

from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints.source import resolve_model

NOT_FINITE = "the classifier's scores are not finite"


class SequenceClassifier:
    """Reads texts, safetensors only; no code of the repository is run.

    Args:
        source: a folder or an id of the Hub.

    Attributes:
        name: of its folder.
        labels: by number.
        independent: whether labels can hold together (sigmoid, `problem_type` multi_label_classification); else they
            exclude one another (softmax).

    Raises:
        ArtefactError: it is no such model.
    """

    def __init__(self, source: Path | str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = resolve_model(source)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{folder} should hold a sequence classifier with safetensors: {error}") from None
        self.name, self._model = folder.name, model.eval()
        self.labels = {int(index): str(label) for index, label in model.config.id2label.items()}
        self.independent = model.config.problem_type == "multi_label_classification"

    def score(self, *texts: str) -> list[float] | None:
        """Return the probability of each label for a text, or for a pair of texts; None where one is not finite."""
        import torch

        encoded = self._tokenizer(*texts, truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = self._model(**encoded).logits[0].double()
        chances = logits.sigmoid() if self.independent else logits.softmax(-1)
        return chances.tolist() if bool(chances.isfinite().all()) else None
