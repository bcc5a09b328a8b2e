"""A classifier reads a config's text: its own probabilities say the topic, words the polarity; the rest stays shut."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prosocial.cli.main import main
from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.evaluation.judges.config_reader import ClassifierReader, labelled_categories
from prosocial.export.bundle_files.manifest import write_manifest
from prosocial.steering.configs import COSA
from prosocial.steering.configs.reading import read_by_words
from prosocial.steering.decoding.config import DecodingConfig

from ..pico_classifier import save_classifier

LABELS = ["Violence", "S7", "ok"]
S7 = {"S7": "drugs"}
TAUGHT = {"hear it": [1.0, 0.0, 0.0], "take it": [0.0, 1.0, 0.0], "cheer up": [0.0, 0.0, 1.0], "sad": [1.0, 1.0, 0.0]}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was taught what four phrases speak of."""
    folder = save_classifier(tmp_path_factory.mktemp("topics") / "topics", LABELS, independent=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    phrases = [*TAUGHT, *(f"they may {phrase}" for phrase in TAUGHT), *(f"never {phrase}" for phrase in TAUGHT)]
    read = tokenizer(phrases, return_tensors="pt", padding=True)
    wanted = torch.tensor([*TAUGHT.values()] * 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        loss = model(**read, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("text", "allows", "forbids"),
    [
        ("They may hear it.", {"violence"}, set()),
        ("They may hear it, but never take it.", {"violence"}, {"drugs"}),
        ("They may hear it. Never hear it.", set(), {"violence"}),
        ("Never sad.", set(), {"violence", "drugs"}),
        ("They may cheer up.", set(), set()),
        ("Hear it.", set(), set()),
    ],
)
def test_labels_say_the_topic_and_words_the_polarity(
    classifier: Path, text: str, allows: set[str], forbids: set[str]
) -> None:
    found = ClassifierReader(classifier, categories=list(COSA.definitions), labels=S7)(text, COSA)
    assert (set(found.allows), set(found.forbids)) == (allows, forbids)
    assert not read_by_words(text, COSA).allows, "the words alone would have said as much"


def test_what_no_label_stands_for_is_told_and_stays_shut(classifier: Path) -> None:
    reader = ClassifierReader(classifier, categories=["violence", "drugs", "other"])
    assert reader.told == "topics reads Violence for violence; nothing reads drugs; labels not used: S7, ok"
    assert not reader("They may take it.", COSA).allows


def test_labels_that_say_nothing_are_refused(classifier: Path, tmp_path: Path) -> None:
    for labels, match in (({"S8": "drugs"}, "label of the classifier"), ({"S7": "theft"}, "harm category")):
        with pytest.raises(UnknownNameError, match=match):
            ClassifierReader(classifier, categories=["violence", "drugs"], labels=labels)
    with pytest.raises(InputError, match="--label Violence=privacy"):
        ClassifierReader(classifier, categories=["privacy"])
    with pytest.raises(InputError, match="not finite"):
        broken = save_classifier(tmp_path / "broken", ["violence", "ok"], broken=True)
        ClassifierReader(broken, categories=["violence"])("They may hear it.", COSA)
    with pytest.raises(ArtefactError, match="sequence classifier"):
        ClassifierReader(tmp_path, categories=["violence"])
    assert labelled_categories({0: "other"}, ["violence", "other"], {"other": "violence"}) == {0: "violence"}


def test_compile_shows_the_mask_of_a_classifier(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    ceiling = {"violence": True, "drugs": True}
    config = {"attributes": ["empathy"], "categories": ["violence", "drugs", "other"], "allowed_ceiling": ceiling}
    DecodingConfig.parse(config, source="test").write(bundle)
    (bundle / "model.onnx").write_bytes(b"\x08\x0a\x12\x02us")  # a model without a graph
    write_manifest(bundle)
    draft, out = tmp_path / "draft.json", tmp_path / "config.json"
    text = "They may hear it, but never take it."
    draft.write_text(json.dumps({"schema": "prosocial.safety_config/1", "name": "novel", "text": text}))
    words = ["config", "compile", str(draft), "--bundle", str(bundle), "-o", str(out)]
    words += ["--classifier", str(classifier)]
    assert main([*words]) == 2 and not out.exists(), "nobody approved it"
    assert main([*words, "--label", "S7", "--yes"]) == 2 and "LABEL=CATEGORY" in capsys.readouterr().err
    assert main([*words, "--endpoint", "m@http://localhost:1/v1", "--yes"]) == 2 and not out.exists()
    capsys.readouterr()
    assert main([*words, "--yes", "--json"]) == 0
    shown = capsys.readouterr()
    assert "topics reads Violence for violence" in shown.err and "allowed: violence" in shown.err
    assert json.loads(out.read_text())["allowed"] == ["violence"] == json.loads(shown.out)["allowed"]
