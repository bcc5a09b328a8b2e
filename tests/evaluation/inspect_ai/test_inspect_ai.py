"""inspect_ai runs a task on a bundle, and opens a comparison; where it is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.evaluation.judges import RefusalJudge
from prosocial.evaluation.model_comparison import ComparisonSettings, compare_models
from prosocial.evaluation.probes.probe import Probe
from prosocial.export import Bundle
from prosocial.steering.decoding.controls import Steering

pytest.importorskip("inspect_ai")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of inspect_ai and what it brings

from inspect_ai import Task, eval  # noqa: E402
from inspect_ai.dataset import Sample  # noqa: E402
from inspect_ai.log import read_eval_log  # noqa: E402
from inspect_ai.model import ChatMessageUser, ContentImage, GenerateConfig, get_model  # noqa: E402
from inspect_ai.scorer import includes  # noqa: E402
from inspect_ai.solver import generate  # noqa: E402

from prosocial.evaluation.inspect_ai import registry  # noqa: E402
from prosocial.evaluation.inspect_ai.logs import write_eval_logs  # noqa: E402
from prosocial.evaluation.inspect_ai.provider import BundleAPI, messages_of  # noqa: E402

PROMPTS = ["word5 word6", "word11 word3"]


def test_a_task_runs_on_a_bundle_as_the_bundle_itself_replies(bundle_folder: Path, tmp_path: Path) -> None:
    assert registry.prosocial
    task = Task(dataset=[Sample(input=text, target="word") for text in PROMPTS], solver=generate(), scorer=includes())
    [log] = eval(
        task,
        model=f"prosocial/{bundle_folder}",
        model_args={"prefer": {"empathy": 1}},
        log_dir=str(tmp_path),
        display="none",
        max_tokens=5,
    )
    asked = [[{"role": "user", "content": text}] for text in PROMPTS]
    steering = Steering(preference={"empathy": 1})
    expected = Bundle.open(bundle_folder).generate(asked, steering=steering, max_new_tokens=5)

    assert log.status == "success" and log.samples is not None
    assert [one.output.completion for one in log.samples] == [reply.text.strip() for reply in expected]
    told = [one.output.metadata or {} for one in log.samples]
    assert [one["min_safe_set_size"] for one in told] == [reply.min_safe_set_size for reply in expected]
    assert [one["finish"] for one in told] == [reply.finish for reply in expected]


def test_what_a_bundle_has_not_is_refused(bundle_folder: Path) -> None:
    with pytest.raises(InputError, match="unknown attribute"):
        BundleAPI(str(bundle_folder), prefer={"wit": 1.0})
    with pytest.raises(InputError, match="text of"):
        messages_of([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")])])
    with pytest.raises(InputError, match="logit_bias"):
        BundleAPI(str(bundle_folder))._options(GenerateConfig(logit_bias={1: 5.0}))


def test_the_longest_reply_is_the_bundles_own(bundle_folder: Path) -> None:
    assert get_model(f"prosocial/{bundle_folder}").api.max_tokens() == 8


@pytest.fixture(scope="module")
def comparison(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    probes = [
        Probe(f"{kind}{index}", ({"role": "user", "content": f"word{7 * index} word{index + 40}"},), kind)
        for index in range(3)
        for kind in ("harmful", "benign")
    ]
    settings = ComparisonSettings(max_new_tokens=3)
    document = compare_models(bundle_folder, bundle_folder, probes=probes, judge=RefusalJudge(), settings=settings)
    out = tmp_path_factory.mktemp("logs") / "logs"
    write_eval_logs(document, out)
    return document, out


def test_a_comparison_is_read_back_with_its_rates(comparison: tuple[dict[str, object], Path]) -> None:
    document, out = comparison
    for system in ("base", "edited"):
        log = read_eval_log(out / f"{system}.eval")
        assert log.status == "success" and log.results is not None and log.samples is not None
        [score] = log.results.scores
        metrics = {one["name"]: one["rates"][system]["estimate"] for one in document["comparison"]["metrics"]}
        assert {name: metric.value for name, metric in score.metrics.items()} == metrics and len(metrics) > 1
        assert {one.id for one in log.samples} == {one["probe"] for one in document["probes"]}


def test_what_the_report_withholds_is_withheld(comparison: tuple[dict[str, object], Path]) -> None:
    log = read_eval_log(comparison[1] / "edited.eval")
    assert log.samples is not None
    for one in log.samples:
        withheld = isinstance(one.input, str) and one.input.startswith("withheld, digest ")
        assert withheld == (one.metadata["kind"] == "harmful")


def test_a_report_without_probes_is_refused(comparison: tuple[dict[str, object], Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="should contain its probes"):
        write_eval_logs(comparison[0] | {"probes": []}, tmp_path)


def test_the_provider_needs_no_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import prosocial.evaluation.inspect_ai.provider"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
