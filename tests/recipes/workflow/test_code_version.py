"""A stage's code version follows all code that its function can reach, and no other."""

import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from rich.console import Console

from prosocial.recipes.pipeline import open_recipe
from prosocial.recipes.workflow.code_version import Reach, code_versions
from prosocial.recipes.workflow.runner import execute, plan_run
from prosocial.recipes.workflow.source_tree import SourceTree
from prosocial.recipes.workflow.stage import StageContext

from ..pico_recipe import write_recipe

ROOT = Path(__file__).parents[3]
ROOTS = ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli")
FILES = {
    "__init__.py": "",
    "start.py": """
        from typing import TYPE_CHECKING
        from .direct import used, unused
        from . import whole
        from .size import Size
        if TYPE_CHECKING:
            from .for_types import Shape

        def run(context: "Shape", size: Size):
            '''What it does.'''  # and why
            from .inside import deep
            from .lazy import public
            return used() + deep() + public() + whole.first()

        def other():
            return unused()
    """,
    "direct.py": """
        LIMIT = 3
        table = {}
        table["limit"] = LIMIT

        def used():
            return len(table) < 4

        def unused():
            return 5 < 6
    """,
    "inside.py": "def deep():\n    return 1 < 2\n",
    "whole.py": "def first():\n    return 1 < 2\n\ndef second():\n    return 3 < 4\n",
    "size.py": "class Size:\n    least = 1 < 2\n",
    "for_types.py": "class Shape:\n    sides = 3 < 4\n",
    "lazy/__init__.py": """
        import lazy_loader
        __getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
    """,
    "lazy/__init__.pyi": """
        from .home import public as public
        from .elsewhere import another as another
    """,
    "lazy/home.py": "MODULE = 'prosocial.editing.child'\n\ndef public():\n    return MODULE\n",
    "lazy/elsewhere.py": "def another():\n    return 1 < 2\n",
    "lazy/loops.c": "int native(int a) { return a < 1; }\n",
    "lazy/page.j2": "{{ a < b }}\n",
    "lazy/notes.txt": "a < b\n",
    "child.py": """
        from .methods.chooser import choose

        def main():
            return choose("plain")
    """,
    "methods/__init__.py": "",
    "methods/chooser.py": """
        import importlib

        def choose(name):
            return importlib.import_module(f".{name}", __package__)
    """,
    "methods/plain.py": "def shape():\n    return 1 < 2\n",
}


def run() -> None: ...


run.__module__ = "prosocial.editing.start"


class Tree:
    """A small package in the place of `prosocial.editing`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("\n        ", "\n").strip() + "\n")

    def version(self) -> str:
        return code_versions({"run": run}, SourceTree({"editing": self.folder}))["run"]

    def change(self, file: str, old: str = "<", new: str = ">") -> None:
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "one")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("start.py", "used() +", "used() -"),
        ("direct.py", "len(table) < 4", "len(table) > 4"),
        ("direct.py", "LIMIT = 3", "LIMIT = 4"),  # used by the statement that fills the table
        ("inside.py", "<", ">"),
        ("whole.py", "3 < 4", "3 > 4"),  # a module as a value
        ("lazy/home.py", "return MODULE", "return MODULE[1:]"),
        ("lazy/__init__.pyi", ".home import public", ".elsewhere import another"),
        ("lazy/loops.c", "<", ">"),
        ("lazy/page.j2", "<", ">"),
        ("child.py", '"plain"', '"other"'),  # named for `python -m`
        ("methods/plain.py", "<", ">"),  # imported by a name that is computed
    ],
)
def test_what_the_function_can_reach_counts(tree: Tree, file: str, old: str, new: str) -> None:
    before = tree.version()
    tree.change(file, old, new)

    assert tree.version() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("start.py", "unused()", "unused() + 1"),
        ("start.py", "'''What it does.'''  # and why", "# something else"),
        ("start.py", "return used()", "return  used( )"),
        ("direct.py", "5 < 6", "5 > 6"),
        ("for_types.py", "<", ">"),
        ("size.py", "<", ">"),  # an annotation
        ("lazy/elsewhere.py", "<", ">"),
        ("lazy/__init__.pyi", "from .elsewhere import another as another", "from .new import new as new"),
        ("lazy/notes.txt", "<", ">"),
    ],
)
def test_other_code_and_what_changes_nothing_do_not_count(tree: Tree, file: str, old: str, new: str) -> None:
    before = tree.version()
    tree.change(file, old, new)

    assert tree.version() == before


def test_the_place_of_the_package_does_not_count(tree: Tree, tmp_path: Path) -> None:
    before = tree.version()
    tree.folder = tree.folder.rename(tmp_path / "moved")

    assert tree.version() == before


def test_another_process_gives_the_same_version() -> None:
    """Python hashes text differently in each process, and with it the order of sets."""
    program = (
        "from prosocial.recipes.lab.judge import LabJudge as f\n"
        "from prosocial.recipes.workflow.code_version import code_versions\n"
        "print(code_versions({'f': f}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1


def test_a_function_from_outside_counts_with_its_file_and_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def help():\n    return 1 < 2\n")
    script = tmp_path / "script.py"
    script.write_text("from helper import help\nfrom prosocial.core.noise import noise\n\ndef run():\n    help()\n")
    versions = []
    for old, new in (("1 < 2", "1 < 2"), ("1 < 2", "1 > 2")):
        (tmp_path / "helper.py").write_text((tmp_path / "helper.py").read_text().replace(old, new))
        module = type(sys)("script_of_a_test")
        module.__file__ = str(script)
        sys.modules[module.__name__] = module
        run_outside: Callable[..., Any] = lambda: None  # noqa: E731
        run_outside.__module__, run_outside.__qualname__ = module.__name__, "run"
        versions.append(code_versions({"run": run_outside})["run"])
        del sys.modules[module.__name__]

    assert versions[0] != versions[1]


def test_a_function_without_a_file_is_known_by_what_it_does() -> None:
    functions = {}
    for name, text in (("one", "lambda: 1 < 2"), ("two", "lambda: 1 > 2"), ("again", "lambda: 1 < 2")):
        functions[name] = eval(text, {"__name__": "typed_at_a_prompt"})
    versions = code_versions(functions)

    assert versions["one"] == versions["again"] != versions["two"]


KEYS_OF_A_COPY = """
import sys
from pathlib import Path
from prosocial.recipes.pipeline import open_recipe
from prosocial.recipes.workflow.plan import plan_run

recipe, pipeline = open_recipe("quickstart")
stages = pipeline.stages(recipe)

def keys():
    return {planned.stage.name: planned.key for planned in plan_run(stages, Path("nowhere")).stages}

for file, old, new in (("portable.py", "bits > ", "bits < "), ("native.c", "#define", "# define")):
    before, path = keys(), Path(sys.argv[1], "editing", "kernels", file)
    path.write_text(path.read_text().replace(old, new))
    print(*sorted(name for name, key in keys().items() if key != before[name]))
"""


def test_a_kernel_changed_on_disk_makes_the_vector_and_what_follows_again(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "package", tmp_path / "prosocial")
    for name in ROOTS:
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tmp_path / "prosocial" / name, ignore=ignored)
    changed = subprocess.run(
        [sys.executable, "-c", KEYS_OF_A_COPY, str(tmp_path / "prosocial")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ).stdout.splitlines()

    assert changed == [" ".join(sorted(ALL - {"data", "base", "harmful"}))] * 2


TRAINED = {"harmful", "reward", "head", "gate"}
REPLYING = {"pairs", "replies", "head", "gate", "threshold", "bundle", "parity", "report"}
JUDGED = {"pairs", "replies", "gate", "threshold", "report"}
ALL = {"data", "base", "vector", "edit", "steered"} | TRAINED | REPLYING
REACH = [
    ("editing/kernels/portable.py", "bits > threshold", "bits < threshold", {"vector", "edit"}),
    ("editing/kernels/native.c", "#define", "# define", {"vector", "edit"}),
    ("editing/kernels/lanes.h", "#ifndef", "# ifndef", {"vector", "edit"}),
    ("editing/vectors/methods/low_rank.py", "return Prepared(", "return  not Prepared(", {"vector"}),
    ("editing/edits/rounding.py", " + ", " - ", {"edit"}),
    ("training/tuning/harmful.py", "training.max_tokens]", "-training.max_tokens]", {"harmful"}),
    ("training/reward/conflict.py", " @ ", " * ", {"reward"}),
    ("training/head/distil.py", "(first - second)", "(first + second)", {"head"}),
    ("training/gate/training.py", " * dense_loss", " / dense_loss", {"gate"}),
    ("steering/gate.py", " + ", " - ", {"head", "gate", "threshold", "steered", "bundle", "parity", "report"}),
    ("core/noise.py", "[skipped:]", "[-skipped:]", {"vector"}),
    ("core/noise.py", "self._streams[row]", "self._streams[-row]", REPLYING),
    ("steering/lexicographic.py", " <= ", " >= ", {"head", "gate", "threshold", "bundle", "parity"}),
    ("steering/decoding/loop.py", " + ", " - ", REPLYING),
    ("export/graph/rotary.py", "endswith", "startswith", {"bundle", "parity"}),
    ("evaluation/gate/threshold.py", "k == n or", "k != n or", {"threshold"}),
    ("verify/parity/child.py", "json.dumps(", "json.dumps(not ", {"parity"}),
    ("evaluation/report/report.html.j2", "<", "< ", {"parity", "report"}),
    ("evaluation/judges/refusal_detector.json", "0", "1", JUDGED),
    ("recipes/lab/judge.py", "not categories and", "categories and", JUDGED),
    ("recipes/lab/base.py", " * ", " / ", {"base"}),
    ("recipes/lab/world.py", "comply_share=1.0", "comply_share=0.0", {"data"}),
    ("recipes/quickstart.yaml", "0", "1", set()),
    ("cli/run.py", "Path(", "Path(not ", set()),
    ("verify/audit/linear.py", " - ", " + ", set()),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("copy")
    for name in ROOTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return {name: folder / name for name in ROOTS}


@pytest.fixture(scope="module")
def versions(copy: dict[str, Path]) -> Callable[[], dict[str, str]]:
    recipe, pipeline = open_recipe("quickstart")
    functions = {stage.name: stage.run for stage in pipeline.stages(recipe)}
    return lambda: code_versions(functions, SourceTree(copy))


@pytest.fixture(scope="module")
def unchanged(versions: Callable[[], dict[str, str]]) -> dict[str, str]:
    return versions()


@pytest.mark.parametrize(("file", "old", "new", "stages"), REACH)
def test_a_changed_operator_changes_the_stages_that_can_reach_it(
    copy: dict[str, Path],
    versions: Callable[[], dict[str, str]],
    unchanged: dict[str, str],
    file: str,
    old: str,
    new: str,
    stages: set[str],
) -> None:
    root, _, inside = file.partition("/")
    path = copy[root] / inside
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        after = versions()
    finally:
        path.write_text(text)

    assert {name for name, version in after.items() if version != unchanged[name]} == stages


class Recorder:
    """Runs a stage and records which top-level definitions of the package were at work."""

    def __init__(self, run: Callable[[StageContext], str]) -> None:
        self.run, self.used = run, set[str]()

    def __call__(self, context: StageContext) -> str:
        threading.setprofile(self._record)
        sys.setprofile(self._record)
        try:
            return self.run(context)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _record(self, frame: FrameType, event: str, argument: object) -> None:
        file, name = frame.f_code.co_filename, frame.f_code.co_qualname.partition(".")[0]
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # and no class body, which runs at import
        if event == "call" and is_function and not name.startswith("<") and (path := _inside(file)):
            self.used.add(f"{path}:{name}")


@cache
def _inside(file: str) -> str:
    """Return the path of a file below the root folders, or nothing for one from elsewhere."""
    path = Path(file).resolve()
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return inside if inside.partition("/")[0] in ROOTS else ""


@pytest.mark.prove
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_at_work_that_the_code_version_does_not_know(tmp_path: Path) -> None:
    """What really runs in a whole run of the pico recipe is what was read off the sources, or less."""
    recipe, pipeline = open_recipe(str(write_recipe(tmp_path)))
    recorders = {stage.name: Recorder(stage.run) for stage in pipeline.stages(recipe)}
    stages = [replace(stage, run=recorders[stage.name]) for stage in pipeline.stages(recipe)]
    execute(plan_run(stages, tmp_path / "store"), Console(quiet=True))

    reach = Reach(SourceTree())
    of_the_runner = tuple(f"recipes/workflow/{name}.py:" for name in ("progress", "runner", "stage"))
    of_the_runner += ("core/progress.py:",)
    for name, recorder in recorders.items():
        known = {label for label, _ in reach.rows(recorder.run)}
        files = {label.removesuffix("*") for label in known if label.endswith(":*")}
        unknown = {
            label
            for label in recorder.used - known
            if not label.startswith(of_the_runner)
            and label.partition(":")[0] + ":" not in files
            and label.partition(":")[0] not in known  # a template: it counts as a file
            and not label.endswith(":__getattr__")  # of a lazy package: it counts with each name of its table
        }
        assert len(recorder.used) > 3, name
        assert not unknown, name
