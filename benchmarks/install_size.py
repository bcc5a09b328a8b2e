"""What an installation weighs and how long its first token takes: ours beside transformers and onnxruntime-genai.

    python benchmarks/install_size.py runs/quickstart/bundle --checkpoint runs/quickstart/edit \
        --transformers PYTHON --genai PYTHON [--runs 5]

Makes a fresh environment with `prosocial[cpu]` of this checkout and nothing else. Of the other two, whose environments
are given and may hold more, only what `torch` and `transformers`, or `onnxruntime-genai`, need is counted, package by
package. The time goes from the start of a process until the first token of a reply is there, medians of processes in
turn; the first turn, which fills the page cache, is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASKED = "how do i choose my yoga corner?"
SIZES = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, distribution
from pip._vendor.packaging.requirements import Requirement
waiting, sizes = [Requirement(text) for text in sys.argv[1:]], {}
seen = set()
while waiting:
    wanted = waiting.pop()
    name = re.sub(r"[-_.]+", "-", wanted.name).lower()
    if (name, *sorted(wanted.extras)) in seen:
        continue
    seen.add((name, *sorted(wanted.extras)))
    try:
        found = distribution(name)
    except PackageNotFoundError:
        continue
    files = [file.locate() for file in found.files or ()]
    sizes[name] = sum(file.stat().st_size for file in files if file.is_file())
    for text in found.requires or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
            waiting.append(need)
print(json.dumps(sizes))
"""
OURS = """
import sys
from prosocial.export import Bundle
bundle = Bundle.open(sys.argv[1])
stream = bundle.generate([[{"role": "user", "content": sys.argv[3]}]], max_new_tokens=1)
"""
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[2]), AutoTokenizer.from_pretrained(sys.argv[2])
asked = [{"role": "user", "content": sys.argv[3]}]
ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
model.generate(**ids, max_new_tokens=1, do_sample=False)
"""
GENAI = """
import sys
import onnxruntime_genai
model = onnxruntime_genai.Model(sys.argv[1])
ids = onnxruntime_genai.Tokenizer(model).encode(sys.argv[3])
parameters = onnxruntime_genai.GeneratorParams(model)
parameters.set_search_options(max_length=len(ids) + 1)
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens(ids)
generator.generate_next_token()
"""


def fresh_environment(folder: Path) -> str:
    """Install `prosocial[cpu]` of this checkout alone; return the interpreter."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, f"{ROOT}[cpu]"], check=True)
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0, "the environment should hold no torch"
    return python


def sizes(python: str, *requirements: str) -> dict[str, int]:
    """Return the bytes of each package that the requirements bring."""
    done = subprocess.run([python, "-c", SIZES, *requirements], check=True, text=True, stdout=subprocess.PIPE)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="for transformers: the edited checkpoint")
    parser.add_argument("--transformers", default=sys.executable, help="python of an environment with transformers")
    parser.add_argument("--genai", default=sys.executable, help="python of an environment with onnxruntime-genai")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--environment", type=Path, help="of an earlier run, to be used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        kept = given.environment and given.environment / "bin" / "python"
        ours = str(kept) if kept and kept.exists() else fresh_environment(given.environment or Path(place) / "ours")
        systems = {
            "prosocial[cpu]": (ours, OURS, ["prosocial[cpu]"]),
            "transformers": (given.transformers, TRANSFORMERS, ["torch", "transformers"]),
            "onnxruntime-genai": (given.genai, GENAI, ["onnxruntime-genai"]),
        }
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for turn in range(given.runs + 1):
            for name, (python, program, _) in systems.items():
                start = time.perf_counter()
                words = [str(given.bundle), str(given.checkpoint), ASKED]
                subprocess.run([python, "-c", program, *words], check=True, capture_output=True)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        for name, (python, _, requirements) in systems.items():
            found = sizes(python, *requirements)
            largest = sorted(found.items(), key=lambda item: -item[1])[:5]
            median, low, high = statistics.median(seconds[name]), min(seconds[name]), max(seconds[name])
            weight = f"{sum(found.values()) / 1e6:6.0f} MB in {len(found)} packages"
            print(f"{name:18} {weight}; first token after {median:.2f} s ({low:.2f} to {high:.2f})")
            print(f"{'':18} {', '.join(f'{package} {size / 1e6:.0f}' for package, size in largest)}")


if __name__ == "__main__":
    main()
