"""Draws the figures of the documentation from a finished run of the quickstart.

    python benchmarks/figures.py runs/quickstart docs/figures

- `report.svg`: rates of the report with their intervals.
- `rule.svg`: the step of the edited model's reply at which the gate removes the most probability.
- `rounding.svg`: how the elements of a random bfloat16 matrix narrow down the coefficient of its edit.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from plots import save

from prosocial.core.files import read_json
from prosocial.verify.audit.intervals import rounding_interval

COLOURS = {"base": "#8a8f98", "edited": "#d08a2e", "gated": "#1f8a70", "removed": "#c0392b"}
RATES = ("leak", "over_refusal", "twin_success", "benign_success")
PROMPT = "tell me how to zorb the flux of my tent club."
N_SHOWN = 9


def draw_report(run: Path, axes: Axes) -> None:
    """Plot each rate of each system with its interval."""
    comparison = read_json(run / "report" / "report.json")["comparison"]
    metrics = [metric for metric in comparison["metrics"] if metric["name"] in RATES]
    for row, metric in enumerate(metrics):
        for at, system in enumerate(comparison["systems"]):
            rate = metric["rates"][system]
            y, x = row + (at - 1) * 0.22, 100 * rate["estimate"]
            bounds = [[x - 100 * rate["low"]], [100 * rate["high"] - x]]
            axes.errorbar(
                x, y, xerr=bounds, fmt="o", ms=5, lw=2, color=COLOURS[system], label=system if not row else None
            )
    axes.set_yticks(
        range(len(metrics)), [f"{metric['title']} (n {metric['rates']['base']['n']})" for metric in metrics]
    )
    axes.invert_yaxis()
    axes.set_xlim(-3, 103)
    axes.set_xlabel("% of replies, 95 % intervals by topic")
    axes.legend(loc="center", frameon=False)


def draw_rule(run: Path, axes: Axes) -> None:
    """Plot the most likely tokens of one step: their probability under the edited model, and their risk."""
    import torch

    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints import load_model
    from prosocial.steering.decoding.loop import generate
    from prosocial.steering.lexicographic import candidate_risk, disallowed_risk
    from prosocial.steering.plausible import plausible
    from prosocial.steering.steered_model import SteeredModel
    from prosocial.steering.torch_engine import PlainEngine

    model, tokenizer = SteeredModel.open(run / "steered"), ChatTokenizer(run / "steered")
    [reply] = generate(PlainEngine(load_model(run / "edit")), tokenizer, [[{"role": "user", "content": PROMPT}]])
    prompt = tokenizer.encode_chat([{"role": "user", "content": PROMPT}])
    ids = torch.tensor([prompt + list(reply.token_ids)])
    with torch.no_grad():
        hidden = model.backbone.hidden(ids)
        z0 = model.backbone.logits(hidden)[0, len(prompt) - 1 : -1]
        _, candidates = plausible(z0, model.config.plausible_k)
        risk = candidate_risk(model.gate, hidden[:, len(prompt) - 1 : -1], candidates[None])
        total = disallowed_risk(risk, torch.zeros(1, len(model.config.categories)))[0]
    share = z0.softmax(-1).gather(-1, candidates)
    tau = model.config.harm_threshold
    step = int((share * (total > tau)).sum(-1).argmax())
    words = [tokenizer.decode([token]).strip() or "␣" for token in candidates[step, :N_SHOWN].tolist()]
    removed = (total[step, :N_SHOWN] > tau).tolist()
    chances = (100 * share[step, :N_SHOWN]).tolist()
    colours = [COLOURS["removed" if gone else "gated"] for gone in removed]
    axes.barh(range(N_SHOWN), chances, color=colours)
    for row, (chance, one) in enumerate(zip(chances, total[step, :N_SHOWN].tolist(), strict=True)):
        axes.text(chance + 1, row, f"risk {one:.2f}" + (" removed" if removed[row] else ""), va="center", fontsize=8)
    axes.set_yticks(range(N_SHOWN), words)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(chances))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 100])
    axes.set_xlabel(f"chance in the edited model, %; threshold {tau}")
    said = tokenizer.decode(reply.token_ids[:step]).strip()
    axes.set_title(f"“{PROMPT}”\n“{said} …”", fontsize=9, loc="left")


def draw_rounding(axes: Axes) -> None:
    """Plot how the interval of the coefficient narrows with each element, and one element that was modified."""
    noise = np.random.default_rng(0)
    n, coefficient = 40_000, 0.6
    base = _bfloat16(noise.normal(0, 0.02, n).astype(np.float32))
    delta = noise.normal(0, 0.0005, n).astype(np.float32)
    out = _bfloat16(base - np.float32(coefficient) * delta)
    low, high = rounding_interval(out, "BF16")
    ends = np.sort(np.stack([(base - low) / delta, (base - high) / delta]), axis=0)
    width = np.minimum.accumulate(ends[1]) - np.maximum.accumulate(ends[0])
    at = np.unique(np.geomspace(1, n, 200).astype(int))
    axes.loglog(at, width[at - 1], color=COLOURS["gated"], lw=2, label="width of what explains all elements so far")
    touched = int(np.abs(delta[: n // 20]).argmax())
    moved = _bfloat16(out[touched : touched + 1] * np.float32(1 + 2**-7))
    low, high = rounding_interval(moved, "BF16")
    away = min(abs((base[touched] - end[0]) / delta[touched] - coefficient) for end in (low, high))
    label = "one element, moved by one step: its nearest coefficient is this far off"
    axes.plot(touched + 1, away, "D", color=COLOURS["removed"], label=label)
    axes.set_xlabel(f"elements looked at; the coefficient is {coefficient}")
    axes.set_ylabel("distance between coefficients")
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def main() -> None:
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    figures = {
        "report": (lambda axes: draw_report(run, axes), (8, 3)),
        "rule": (lambda axes: draw_rule(run, axes), (7, 3.4)),
        "rounding": (draw_rounding, (7, 3.2)),
    }
    for name, (draw, size) in figures.items():
        figure, axes = plt.subplots(figsize=size)
        draw(axes)
        save(figure, out / f"{name}.svg")
    print(json.dumps(sorted(path.name for path in out.glob("*.svg"))))


if __name__ == "__main__":
    main()
