"""Compares speed and memory of decoding: our bundles, onnxruntime-genai with its builder's graph, and transformers.

    python benchmarks/decode.py --work bench --models llama,qwen3 --prompts 32,512 --batches 1,8 --runs 5

Creates (once) random models of about 90 M parameters, their plain and steered bundles, and an environment with
onnxruntime-genai, whose builder exports its graphs. Every system runs in its own process with the same number of
threads; systems answer in turn, one at a time. Prints medians of tokens per second (including the prompt) and of the
time to the first token, ratios of the medians, peak memory, and whether greedy tokens agree.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from workers import Worker

VOCABULARY, CONTEXT, END = 16384, 2048, 1
SIZES = {
    "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 64, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
    "bos_token_id": 0, "eos_token_id": END, "pad_token_id": END, "tie_word_embeddings": False,
}  # fmt: skip
CLASSES = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen3": ("Qwen3Config", "Qwen3ForCausalLM")}
GENAI = ("torch==2.13.0", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-genai==0.18.0")
PLAIN, STEERED, INT8, BUILDER = "ours, plain", "ours, steered", "ours, steered, int8", "genai, its builder"
OUR_GRAPH, TORCH, GUIDED = "genai, our plain graph", "transformers", "transformers, guided"


def make_model(folder: Path, kind: str) -> None:
    """Write a random model with a word tokenizer, whose end token is unlikely."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    config, model_class = (getattr(transformers, name) for name in CLASSES[kind])
    model = model_class(config(**SIZES))
    with torch.no_grad():
        model.lm_head.weight[END] = 0.0
    model.save_pretrained(folder)
    words = ["<s>", "</s>", *(f"w{index}" for index in range(VOCABULARY - 2))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }} {% endfor %}")


def make_bundles(work: Path) -> None:
    """Export the plain and the steered bundle of a model, with a random head and a gate that allows most tokens."""
    import torch

    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.export import export_bundle
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead
    from prosocial.steering.steered_model import assemble_steered

    checkpoint, attributes, categories = work / "model", ["empathy", "helpfulness"], ["violence", "other"]
    torch.manual_seed(1)
    hidden = SIZES["hidden_size"]
    head, gate = CompactHead(attributes, hidden, 8), HarmGate(categories, VOCABULARY, hidden, 16)
    with torch.no_grad():
        head.B.normal_(0.0, 0.01)
        gate.a.fill_(-4.0)
    for part in (head, gate):
        part.save(work / "parts", checkpoint_fingerprint=Checkpoint.open(checkpoint).fingerprint())
    config = DecodingConfig.model_validate({"attributes": attributes, "categories": categories})
    parts = work / "parts"
    assemble_steered(checkpoint=checkpoint, head=parts, gate=parts, config=config, out=work / "steered-model")
    export_bundle(work / "steered-model", work / "steered")
    export_bundle(work / "steered-model", work / "int8", precision="int8")
    export_bundle(checkpoint, work / "plain", plain=True)


def install(folder: Path) -> Path:
    """Create an environment with onnxruntime-genai unless it exists; return its interpreter."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "-c", "constraints.txt"]
        subprocess.run([*pip, GENAI[0]], check=True)
        subprocess.run([*pip, *GENAI[1:]], check=True)
    return python


def build(python: Path, work: Path) -> None:
    """Export a model with onnxruntime-genai's builder."""
    command = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(work / "model"), "-o"]
    command += [str(work / "builder"), "-p", "fp32", "-e", "cpu", "-c", str(work / "cache")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@dataclass
class Decoder(Worker):
    """A system and its answers by request."""

    seconds: dict[tuple[int, int], list[tuple[float, float]]] = field(default_factory=dict)
    tokens: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)

    def ask(self, cell: tuple[int, int], prompts: list[list[int]], n_new: int, *, warming: bool) -> None:
        """Run one request and record its times, unless it is a warm-up."""
        answer = self.request({"prompts": prompts, "n_new": n_new})
        self.tokens[cell] = answer["tokens"]
        if not warming:
            self.seconds.setdefault(cell, []).append(tuple(answer["seconds"]))


def start_all(work: Path, python: Path, threads: int, chosen: Sequence[str]) -> list[Decoder]:
    """Start every chosen system."""
    rows = {
        PLAIN: (sys.executable, "ours", work / "plain"),
        STEERED: (sys.executable, "ours", work / "steered"),
        INT8: (sys.executable, "ours", work / "int8"),
        BUILDER: (python, "genai", work / "builder"),
        OUR_GRAPH: (python, "genai", work / "plain"),
        TORCH: (sys.executable, "transformers", work / "model"),
        GUIDED: (sys.executable, "guided", work / "model"),
    }
    script = str(Path(__file__).with_name("decode_systems.py"))
    commands = {name: [str(run), script, system, str(at), str(threads)] for name, (run, system, at) in rows.items()}
    return [Decoder.start(name, commands[name], threads) for name in rows if name in chosen]


def report(kind: str, workers: Sequence[Decoder], n_new: int) -> None:
    """Print the tables of one model."""
    print(f"\n{kind}: tokens per second (median), against the builder's; milliseconds to the first token; same tokens")
    by_name = {worker.name: worker for worker in workers}
    reference = by_name.get(BUILDER, workers[0])
    for cell in workers[0].seconds:
        print(f"  prompt {cell[0]}, batch {cell[1]}")
        base = statistics.median(total for _, total in reference.seconds[cell])
        for worker in workers:
            first, total = (statistics.median(times) for times in zip(*worker.seconds[cell], strict=True))
            pairs = zip(worker.tokens[cell], reference.tokens[cell], strict=True)
            n_same = sum(ours == theirs for ours, theirs in pairs)
            same = "" if worker.name in (STEERED, INT8, GUIDED) else f"{n_same} of {cell[1]}"
            speed = n_new * cell[1] / total
            print(f"    {worker.name:24} {speed:8.1f}  {base / total:5.2f}  {1000 * first:8.1f} ms  {same}")
    print("  peak memory of the process, MB (all requests)")
    for worker in workers:
        ratio = worker.peak_bytes / reference.peak_bytes
        print(f"    {worker.name:24} {worker.peak_bytes / 1e6:8.0f}  {ratio:5.2f}")


def draw(path: Path, kind: str, workers: Sequence[Decoder], n_new: int) -> None:
    """Plot the time per token by context length and by batch size, medians with quartiles."""
    import matplotlib.pyplot as plt
    from plots import save

    cells = list(workers[0].seconds)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for panel, axis, label in ((panels[0], 0, "prompt, tokens"), (panels[1], 1, "batch, rows")):
        held = max({cell[1 - axis] for cell in cells}, key=lambda size: sum(cell[1 - axis] == size for cell in cells))
        line = sorted(cell for cell in cells if cell[1 - axis] == held)
        for worker in workers:
            times = [[1000 * (total - first) / (n_new - 1) for first, total in worker.seconds[cell]] for cell in line]
            low, middle, high = zip(*(np.quantile(values, [0.25, 0.5, 0.75]) for values in times), strict=True)
            at = [cell[axis] for cell in line]
            panel.plot(at, middle, marker="o", markersize=3, label=worker.name)
            panel.fill_between(at, low, high, alpha=0.2)
        panel.set_xlabel(label)
        panel.set_title(f"{'batch' if axis == 0 else 'prompt'} {held}", fontsize=9)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds per step, after the first token")
    panels[0].set_ylim(bottom=0)
    panels[1].legend(fontsize=7)
    figure.suptitle(f"{kind} of about 90 M parameters, CPU", fontsize=10)
    save(figure, path)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models, environment and bundles")
    parser.add_argument("--models", default="llama,qwen3")
    parser.add_argument("--prompts", default="32,512", help="prompt lengths in tokens")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--new", type=int, default=128, help="number of new tokens")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", default="", help="such as 32x1,512x1,512x8 (prompt x batch) instead of all pairs")
    parser.add_argument(
        "--plot", type=Path, help="SVG plot of time by context length and batch size, for the last model"
    )
    parser.add_argument("--systems", default=";".join((PLAIN, STEERED, INT8, BUILDER, OUR_GRAPH, TORCH, GUIDED)))
    given = parser.parse_args()
    python = install(given.work.absolute() / "genai")
    pairs = [(prompt, batch) for prompt in given.prompts.split(",") for batch in given.batches.split(",")]
    if given.cells:
        pairs = [tuple(cell.split("x")) for cell in given.cells.split(",")]
    cells = [(int(prompt), int(batch)) for prompt, batch in pairs]
    for kind in given.models.split(","):
        work = given.work.absolute() / kind
        if not (work / "builder" / "genai_config.json").is_file():
            make_model(work / "model", kind)
            make_bundles(work)
            build(python, work)
        workers = start_all(work, python, given.threads, given.systems.split(";"))
        numbers = np.random.default_rng(0)
        requests = {cell: numbers.integers(2, VOCABULARY, cell[::-1]).tolist() for cell in cells}
        for turn in range(given.runs + 1):
            for cell, prompts in requests.items():
                for worker in np.roll(np.array(workers, dtype=object), turn):  # a different system is first each time
                    worker.ask(cell, prompts, given.new, warming=turn == 0)
        report(kind, workers, given.new)
        if given.plot:
            draw(given.plot, kind, workers, given.new)
        for worker in workers:
            worker.stop()


if __name__ == "__main__":
    main()
