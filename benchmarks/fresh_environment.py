"""Compares installed size and time to the first token of this package, transformers and onnxruntime-genai.

    python benchmarks/fresh_environment.py runs/quickstart [--runs 7] [--work DIR]

Creates three environments: the wheel of this checkout with [cpu], torch with transformers, and onnxruntime-genai alone.
Ours loads the bundle with `Bundle.from_pretrained` from a local Hub server, with an empty and with a full cache, and
also from a folder, like onnxruntime-genai; transformers loads the edited checkpoint. All get the same prompt,
onnxruntime-genai as our token ids. The time is measured from the start of a process until the first token; the medians
are over processes that alternate, without the first round, which fills the page cache. Fails if torch is importable in
our environment, if two systems read different prompts, or if two systems with the same bundle give different first
tokens.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, TORCH, environment
from huggingface_hub import HfApi

from prosocial.export import Bundle

sys.path.insert(0, str(ROOT / "tests"))
from hub.hub_fixture import LoopbackHub, point_client_at  # the tests' Hub

PROMPT = "how do i choose my yoga corner?"
NAME = "org/quickstart"
OURS = """
import json, sys
from importlib.util import find_spec
from prosocial.export import Bundle
assert find_spec("torch") is None, "torch should not be here"
bundle = Bundle.{open}(sys.argv[1])
messages = [{{"role": "user", "content": sys.argv[2]}}]
[reply] = bundle.generate([messages], max_new_tokens=1)
print(json.dumps([list(map(int, bundle.tokenizer.encode_chat(messages))), int(reply.token_ids[0])]), flush=True)
"""
TRANSFORMERS = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
messages = [{"role": "user", "content": sys.argv[2]}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
[tokens] = model.generate(**ids, max_new_tokens=1, do_sample=False).tolist()
print(json.dumps([tokens[:-1], tokens[-1]]), flush=True)
"""
GENAI = """
import json, sys
import numpy as np
import onnxruntime_genai
model = onnxruntime_genai.Model(sys.argv[1])
tokenizer = onnxruntime_genai.Tokenizer(model)
messages, ids = json.dumps([{"role": "user", "content": sys.argv[2]}]), json.loads(sys.argv[3])
tokenizer.encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True))  # takes its time; the ids differ
parameters = onnxruntime_genai.GeneratorParams(model)
parameters.set_search_options(max_length=len(ids) + 1, do_sample=False)
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens(np.array(ids, dtype=np.int32))
generator.generate_next_token()
print(json.dumps([ids, int(generator.get_sequence(0)[-1])]), flush=True)
"""


@dataclass(frozen=True)
class System:
    """A measured system: an interpreter, its program and model, and a preparation that is not timed."""

    python: Path
    program: str
    opens: str
    prompt_ids: list[int]
    prepare: Callable[[], object] = lambda: None

    def first_token(self) -> tuple[float, Any]:
        """Start a process; return the seconds until the first token, and [prompt ids, token]."""
        self.prepare()
        start = time.perf_counter()
        command = [self.python, "-I", "-c", self.program, self.opens, PROMPT, json.dumps(self.prompt_ids)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            errors = process.stderr.read()
        if process.returncode:
            sys.exit(f"{self.python} should print its first token: {errors}")
        return seconds, json.loads(line)


def build_wheel(out: Path) -> Path:
    """Build the wheel of this checkout from its sdist, so that no stale files are included."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, stdout=subprocess.DEVNULL)
    [wheel] = out.glob("*.whl")
    return wheel


def weight(python: Path) -> str:
    """Return the size and number of an environment's packages, and the largest ones, as text."""
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, check=True, text=True, stdout=subprocess.PIPE).stdout.strip())
    sizes: Counter[str] = Counter()
    for file in site.rglob("*"):
        if file.is_file():  # numpy's shared libraries are in numpy.libs
            sizes[file.relative_to(site).parts[0].removesuffix(".libs")] += file.stat().st_size
    n_packages = sum(name.endswith(".dist-info") for name in sizes)
    shown = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sizes.most_common(4))
    return f"{sizes.total() / 1e6:6.0f} MB in {n_packages} packages ({shown})"


def systems_of(run: Path, work: Path, home: Path) -> dict[str, System]:
    """Create the environments and return the systems; `home` is the cache folder of the Hub's client."""
    for folder in ("dist", "ours"):  # another checkout's wheel has the same name
        shutil.rmtree(work / folder, ignore_errors=True)
    wheel = build_wheel(work / "dist")
    ours = environment(work / "ours", f"prosocial[cpu] @ {wheel.resolve().as_uri()}")
    transformers = environment(work / "transformers", TORCH, "transformers")
    genai = environment(work / "genai", "onnxruntime-genai")
    empty = partial(shutil.rmtree, home / "hub", ignore_errors=True)
    fetched, opened = OURS.format(open="from_pretrained"), OURS.format(open="open")
    ids = Bundle.open(run / "bundle").tokenizer.encode_chat([{"role": "user", "content": PROMPT}])
    return {
        "prosocial[cpu], from the Hub, empty cache": System(ours, fetched, NAME, ids, empty),
        "prosocial[cpu], from the Hub, full cache": System(ours, fetched, NAME, ids),
        "prosocial[cpu], from a folder": System(ours, opened, str(run / "bundle"), ids),
        "onnxruntime-genai, from a folder": System(genai, GENAI, str(run / "bundle"), ids),
        "torch and transformers, from a folder": System(transformers, TRANSFORMERS, str(run / "edit"), ids),
    }


def measure(systems: dict[str, System], *, n_runs: int) -> dict[str, list[float]]:
    """Run all systems in turn and return their seconds.

    Raises:
        SystemExit: the systems read different prompts, or one bundle gave different first tokens.
    """
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(n_runs + 1):
        said = {}
        for name, system in systems.items():
            taken, said[name] = system.first_token()
            if turn:
                seconds[name].append(taken)
        prompts = {json.dumps(prompt) for prompt, _ in said.values()}
        tokens = {token for name, (_, token) in said.items() if systems[name].program != TRANSFORMERS}
        if len(prompts) > 1 or len(tokens) > 1:
            sys.exit(f"all systems should read the same prompt, and one bundle give the same token, found {said}")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="results of the quickstart, of which bundle and edit are used")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--work", type=Path, help="folder of the environments, which are kept for the next run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        home = Path(place) / "home"
        systems = systems_of(given.run, given.work or Path(place), home)
        point_client_at(hub, home, patch)
        HfApi().create_repo(NAME, private=True)
        HfApi().upload_folder(repo_id=NAME, folder_path=given.run / "bundle")
        seconds = measure(systems, n_runs=given.runs)
        print(f"{os.cpu_count()} cores, median of {given.runs} processes each (fastest to slowest)")
        for python in dict.fromkeys(system.python for system in systems.values()):
            print(f"{python.parents[1].name:13} {weight(python)}")
        reference = statistics.median(seconds["prosocial[cpu], from a folder"])
        for name, taken in seconds.items():
            median = statistics.median(taken)
            span = f"({min(taken):.2f} to {max(taken):.2f})"
            print(f"{name:42} first token after {median:.2f} s {span}, {median / reference:.1f} times ours")


if __name__ == "__main__":
    main()
