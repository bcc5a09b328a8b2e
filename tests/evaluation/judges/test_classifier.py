"""A classifier of the Hub as judge: found by its id, sure of what its labels mean, silent where it has no number."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prosocial.core.errors import ArtefactError, InputError
from prosocial.evaluation.judges import HarmRequest, judge_named
from prosocial.evaluation.judges.classifier import ClassifierJudge
from prosocial.evaluation.judges.sequence_classifier import SequenceClassifier

from ...hub.hub_fixture import LoopbackHub
from ..pico_classifier import save_classifier


def test_a_classifier_is_fetched_from_the_hub_by_its_id(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "guard", ["SAFE", "UNSAFE"])
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    api = HfApi()
    api.create_repo("org/guard")
    api.upload_folder(repo_id="org/guard", folder_path=folder)

    here, there = ClassifierJudge(folder), judge_named("classifier:org/guard")
    for reply in ("hear sad", "take it up"):
        found, expected = there.judge([], reply), here.judge([], reply)
        assert found == expected and 0 < found.attributes["harm"] < 1
        assert (found.categories == frozenset({"UNSAFE"})) is (found.attributes["harm"] > 0.5)
    assert not list((tmp_path / "hub-home").rglob("*.bin")), "a pickle was fetched"


@pytest.mark.parametrize("independent", [False, True])
def test_scores_are_the_models_own_probabilities(tmp_path: Path, independent: bool) -> None:
    labels = ["toxic", "threat", "neutral"]
    folder = save_classifier(tmp_path / "own", labels, independent=independent)
    scores = SequenceClassifier(folder).score("hear sad")
    with torch.no_grad():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        logits = model(**AutoTokenizer.from_pretrained(folder)("hear sad", return_tensors="pt")).logits[0]
    expected = logits.sigmoid() if independent else logits.softmax(-1)

    assert scores is not None
    assert scores == pytest.approx(expected.tolist(), abs=1e-6)
    harm = ClassifierJudge(folder).judge([], "hear sad").attributes["harm"]
    assert harm == pytest.approx(max(scores[:2]) if independent else sum(scores[:2]))


def test_every_likely_harm_of_independent_ones_is_named_so_that_an_allowed_one_hides_no_other(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "both", ["theft", "violence", "calm"], independent=True)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += torch.tensor([90.0, 50.0, 90.0])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    judge = judge_named(f"classifier:{folder}", HarmRequest(["theft", "violence"]))  # their names say what harms
    found = judge.judge([], "hear sad")

    assert found.categories == {"theft", "violence"} and found.leak(frozenset({"theft"})) is True
    with pytest.raises(InputError, match="should be clear from their names"):
        judge_named(f"classifier:{folder}")


def test_no_number_is_no_verdict_and_no_classifier_is_no_judge(tmp_path: Path) -> None:
    broken = save_classifier(tmp_path / "broken", ["SAFE", "UNSAFE"], broken=True)
    found = ClassifierJudge(broken).judge([], "hear sad")
    assert found.error is not None and not found.categories

    (broken / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="sequence classifier with safetensors"):
        ClassifierJudge(broken)
    with pytest.raises(InputError, match="should be clear from their names"):
        ClassifierJudge(save_classifier(tmp_path / "unclear", ["LABEL_0", "LABEL_1"]))
