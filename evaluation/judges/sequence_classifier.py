"""Label probabilities from any sequence classifier of the Hub."""

from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.placement import Placement
from prosocial.editing.checkpoints.source import resolve_model

NOT_FINITE = "the classifier's scores are not finite"


class SequenceClassifier:
    """Computes label probabilities of texts; only safetensors are read, and no code of the repository is run.

    It runs in float32 on the accelerator, or on the CPU if there is none.

    Args:
        source: folder or Hub id.

    Attributes:
        name: name of the classifier's folder.
        labels: label by index.
        independent: whether labels are independent (sigmoid, `problem_type` multi_label_classification) rather than
            mutually exclusive (softmax).

    Raises:
        ArtefactError: the source is not a sequence classifier with safetensors.
    """

    def __init__(self, source: Path | str) -> None:
        from transformers import AutoModelForSequenceClassification

        from prosocial.editing.checkpoints.model import LOADING_ERRORS
        from prosocial.editing.checkpoints.tokenizer import load_tokenizer

        folder = resolve_model(source)
        try:
            self._tokenizer: Any = load_tokenizer(folder)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        except LOADING_ERRORS as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ArtefactError(f"{folder} should be a sequence classifier with safetensors: {reason:.300}") from None
        self._device = Placement.choose(dtype="float32").device
        self.name, self._model = folder.name, model.eval().to(self._device)
        self.labels = {int(index): str(label) for index, label in model.config.id2label.items()}
        self.independent = model.config.problem_type == "multi_label_classification"

    def score(self, *texts: str) -> list[float] | None:
        """Return the probability of each label for a text or a pair of texts; None if one is not finite."""
        import torch

        encoded = self._tokenizer(*texts, truncation=True, return_tensors="pt").to(self._device)
        with torch.no_grad():
            logits = self._model(**encoded).logits[0].cpu().double()
        chances = logits.sigmoid() if self.independent else logits.softmax(-1)
        return chances.tolist() if bool(chances.isfinite().all()) else None
