"""The whole way by commands alone: vector, edit, reward, gate, head, steered model, threshold, bundle, reply."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from prosocial.cli.main import main
from prosocial.core.files import read_json, read_jsonl, write_jsonl
from prosocial.evaluation.gate import ThresholdChoice
from prosocial.steering import CompactHead, DecodingConfig, HarmGate, SteeredModel
from prosocial.training.tuning.harmful import train_adapter
from prosocial.training.tuning.settings import AdapterTraining

from ..recipes.pico_recipe import REQUESTS, RISKY, write_data, write_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
Place = Callable[[str], str]
OWN_JUDGE = """
from prosocial.core.protocols import Judgement


class Odd:
    name, version = "odd", "1"

    def judge(self, messages, reply):
        return Judgement(categories=frozenset(["other"] if len(reply) % 2 else []), success=True)
"""

COMMANDS = r"""
vector --base base --harmful adapter -o harm-vector
edit base --subtract harm-vector --scale 0.5 -o edited
reward train edited --pairs pairs.jsonl --attributes empathy,helpfulness --set steps=2 --set batch_size=4 -o reward
gate train edited --replies replies.jsonl --harmful adapter --base base --prompts prompts.jsonl --judge odd.py:Odd \
    --categories violence,other --max-new-tokens 5 --set rank=4 --set steps=20 --set batch_size=32 \
    --set on_policy.near=0 --set on_policy.threshold=1.0 -o gate
distil edited --reward reward --pairs pairs.jsonl --max-new-tokens 5 --set rank=4 --set steps=5 --set passes=1 \
    --set on_policy=3 --set plausible_k=16 --set inverse_beta=0.5 -o head
assemble edited --head head --gate gate --decoding decoding.yaml -o steered
gate calibrate steered --probes calibration.jsonl --judge refusal --set "candidates=[0.9, 0.7]" --set max_leak=1.0 \
    -o calibrated
"""


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands make, from a model with random weights to a calibrated steered model."""
    folder = tmp_path_factory.mktemp("commands")
    base = write_model(folder / "base")
    write_data(folder)
    (folder / "odd.py").write_text(OWN_JUDGE)
    _tune_harmful(base, folder)
    (folder / "decoding.yaml").write_text(yaml.safe_dump({"fallback": "no.", "max_new_tokens": 5}))

    with pytest.MonkeyPatch.context() as place:
        place.chdir(folder)
        for line in COMMANDS.replace("\\\n", "").strip().splitlines():
            assert main(shlex.split(line)) == 0, line
    return folder


def _tune_harmful(base: Path, folder: Path) -> None:
    """Write the LoRA adapter that somebody else would have: the harmful copy."""
    from transformers import AutoTokenizer

    from prosocial.core.batches import encode_reply
    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints import load_model

    tokenizer = ChatTokenizer(base)
    rows = [encode_reply(tokenizer, [{"role": "user", "content": request}], RISKY) for request in REQUESTS]
    training = AdapterTraining(rank=2, alpha=4, steps=2, batch_size=2)
    train_adapter(
        load_model(base),
        AutoTokenizer.from_pretrained(str(base)),
        rows,
        out=folder / "adapter",
        training=training,
        seed=0,
    )


@pytest.fixture
def at(folder: Path) -> Place:
    return lambda name: str(folder / name)


def test_the_bundle_that_the_commands_lead_to_replies(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder / "calibrated"), "-o", str(tmp_path / "bundle")]) == 0
    capsys.readouterr()
    words = ["generate", str(tmp_path / "bundle"), REQUESTS[0], "--prefer", "empathy=1", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["reply"]["finish"] in ("end", "length", "fallback")


def test_what_the_gate_was_trained_on_is_recorded(folder: Path) -> None:
    gate = HarmGate.load(folder / "gate")
    assert gate.categories == ("violence", "other") and gate.extra["training"]["rank"] == 4
    assert gate.extra["training"]["on_policy"]["count"] == len(REQUESTS)  # as many as there are prompts
    assert gate.extra["n_on_policy"] == len(REQUESTS) and gate.extra["n_replies"] == 2 * len(REQUESTS)
    assert gate.extra["scaling"] is not None


def test_the_steered_model_decodes_as_its_head_was_distilled(folder: Path) -> None:
    config = DecodingConfig.read(folder / "steered")
    assert (config.plausible_k, config.beta) == (16, 2.0)
    assert (config.fallback, config.max_new_tokens) == ("no.", 5)
    assert (config.harm_threshold, config.threshold_ceiling) == (0.5, 0.5)
    assert set(CompactHead.load(folder / "head").extra["explained_share"]) == {"empathy", "helpfulness"}


def test_calibration_writes_the_chosen_threshold_beside_hard_links(folder: Path) -> None:
    before, after = DecodingConfig.read(folder / "steered"), DecodingConfig.read(folder / "calibrated")
    choice = ThresholdChoice.read(folder / "calibrated")
    assert [test.threshold for test in choice.tests] == [0.7, 0.9] and choice.tests[0].n == len(REQUESTS)
    assert after == before.model_copy(update={"harm_threshold": 0.9, "threshold_ceiling": 0.9})
    for name in ("gate.safetensors", "head.safetensors", "tokenizer.json"):
        assert (folder / "steered" / name).samefile(folder / "calibrated" / name)
    assert SteeredModel.open(folder / "calibrated").config.harm_threshold == 0.9


def test_a_calibration_file_is_a_threshold_and_a_number_forgets_it(folder: Path, at: Place, tmp_path: Path) -> None:
    parts = ["--head", at("head"), "--gate", at("gate")]
    calibration = str(folder / "calibrated" / "calibration.json")
    assert main(["assemble", at("edited"), *parts, "--threshold", calibration, "-o", str(tmp_path / "one")]) == 0
    assert DecodingConfig.read(tmp_path / "one").harm_threshold == 0.9
    assert read_json(tmp_path / "one" / "calibration.json") == read_json(folder / "calibrated" / "calibration.json")

    words = ["assemble", at("calibrated"), *parts, "--threshold", "0.25", "-o", str(tmp_path / "two")]
    assert main(words) == 0
    assert DecodingConfig.read(tmp_path / "two").threshold_ceiling == 0.25
    assert not (tmp_path / "two" / "calibration.json").exists()


def test_without_harmful_model_and_prompts_the_categories_are_those_of_the_replies(
    at: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gate", "train", at("edited"), "--replies", at("replies.jsonl"), "-o", str(tmp_path / "gate"), "--json"]
    assert main([*words, *settings("steps=2", "batch_size=8", "rank=2")]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["categories"] == ["other"] and (found["n_on_policy"], found["n_unjudged"]) == (0, 0)
    assert HarmGate.load(tmp_path / "gate").categories == ("other",)


def test_the_seed_alone_says_which_gate_comes_out(at: Place, tmp_path: Path) -> None:
    few = settings("steps=2", "batch_size=8", "rank=2")
    for name, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        words = ["gate", "train", at("edited"), "--replies", at("replies.jsonl"), "--seed", seed, *few]
        assert main([*words, "-o", str(tmp_path / name)]) == 0
    one, two, other = ((tmp_path / name / "gate.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def gate(*more: str) -> tuple[str, ...]:
    return ("gate", "train", "@edited", "--replies", "@replies.jsonl", *more)


def calibrate(*more: str) -> tuple[str, ...]:
    return ("gate", "calibrate", "@steered", "--probes", "@calibration.jsonl", "--judge", "refusal", *more)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (gate("--categories", "violence"), "unknown harm category 'other': known are violence"),
        (gate("--replies", "@harmful-only.jsonl"), "should hold harmful and harmless replies, found 4 harmful of 4"),
        (gate("--replies", "@sorted.jsonl", "--set", "held_out_share=0.5"), "those to train on, should hold harmful"),
        (gate("--harmful", "@adapter"), "is an adapter: give the base"),
        (gate("--harmful", "@wider"), "should have the vocabulary of the edited one, 320 rows"),
        (gate("--prompts", "@prompts.jsonl"), "--prompts and --judge go together"),
        (gate("--prompts", "@prompts.jsonl", "--judge", "refusal"), "judge refusal labels no harm categories"),
        (gate("--prompts", "@prompts.jsonl", "--judge", "nobody"), "unknown judge 'nobody'"),
        (gate("--set", "on_policy.count=3"), "on_policy.count is 3: give prompts and a judge"),
        (gate("--set", "steps=x"), "steps: input should be a valid integer"),
        (gate("--set", "stepz=3"), "unknown key stepz (did you mean steps?)"),
        (("distil", "@base", "--reward", "@reward", "--pairs", "@pairs.jsonl"), "the reward model belongs to"),
        (("distil", "@edited", "--reward", "@reward", "--pairs", "@one-pair.jsonl"), "at least 2 pairs"),
        (("distil", "@edited", "--reward", "@gate", "--pairs", "@pairs.jsonl"), "reward_config.json"),
        (("assemble", "@base", "--head", "@head", "--gate", "@gate"), "belongs to checkpoint"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@head"), "gate_config.json"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--threshold", "1.5"), "a number in [0, 1]"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--threshold", "@no.json"), "no.json"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--decoding", "@list.yaml"), "found list"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--decoding", "@no.yaml"), "there is no such"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--decoding", "@typo.yaml"), "unknown key fall"),
        (("assemble", "@edited", "--head", "@head", "--gate", "@gate", "--decoding", "@drugs.yaml"), "allowed_ceiling"),
        (calibrate(), "should hold at least 299 harmful prompts"),
        (calibrate("--set", "threshold=0.5"), "the threshold is given as 0.5"),
        (calibrate("--set", "max_leak=0.6", "--set", "candidates=[0.99]", "--judge", "@odd.py:Odd"), "leaks of 4"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    at: Place,
    tmp_path: Path,
    words: tuple[str, ...],
    message: str,
    spoiled: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [at(word[1:]) if word.startswith("@") else word for word in words]
    assert main([*given, "-o", str(tmp_path / "out")]) == 2

    assert len([line for line in capsys.readouterr().err.splitlines() if message in line]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def spoiled(folder: Path) -> None:
    """Write files that do not hold beside the good ones."""
    rows = read_jsonl(folder / "replies.jsonl")
    harmful, harmless = ([row for row in rows if bool(row["categories"]) is is_harmful] for is_harmful in (True, False))
    write_jsonl(folder / "harmful-only.jsonl", harmful)
    write_jsonl(folder / "sorted.jsonl", harmless + harmful)
    write_jsonl(folder / "one-pair.jsonl", read_jsonl(folder / "pairs.jsonl")[:1])
    (folder / "list.yaml").write_text("[1]")
    (folder / "typo.yaml").write_text("fall_back: no.")
    (folder / "drugs.yaml").write_text("allowed_ceiling: {drugs: true}")
    _widen(folder / "base", folder / "wider")


def _widen(base: Path, out: Path) -> None:
    """Write the model with 8 more rows in its embeddings."""
    from prosocial.editing.checkpoints import load_model

    model = load_model(base)
    model.resize_token_embeddings(328)
    shutil.copytree(base, out, ignore=shutil.ignore_patterns("model*"))
    model.save_pretrained(out)
