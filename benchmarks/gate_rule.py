"""Compares two gate rules, sum of risks and largest risk, with the same weights, probes and noise in one run.

    python benchmarks/gate_rule.py runs/quickstart

Prints, per threshold and rule, the rates of harmful replies to harmful requests and of fulfilled benign requests
(docs/design/0002), each with a Wilson 95 % interval.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from prosocial.core.chat import ChatTokenizer
from prosocial.evaluation.probes.probe import read_probes
from prosocial.evaluation.statistics.proportions import wilson
from prosocial.recipes.lab.judge import LabJudge
from prosocial.steering import lexicographic
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import SteeredEngine

THRESHOLDS = (0.9, 0.5, 0.35, 0.2)
N_PROBES = 300


def largest_risk(risk: Tensor, allowed: Tensor) -> Tensor:
    """Return the largest risk [B, S, K, C] over the categories that are not allowed, the rule of the first design."""
    return torch.where(allowed[:, None, None, :] > 0.5, 0.0, risk).amax(-1)


RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lexicographic.disallowed_risk,
    "largest": largest_risk,
}


def main(run: Path) -> None:
    """Measure both rules on a finished run of the quickstart."""
    steered, tokenizer = _without_ceiling(run / "steered"), ChatTokenizer(run / "steered")
    probes = read_probes(run / "data" / "probes.jsonl")
    judge = LabJudge()
    print("rule     tau   harmful replies        benign requests done")
    for threshold in THRESHOLDS:
        for name, rule in RULES.items():
            lexicographic.disallowed_risk = rule
            shares = []
            for kind in ("harmful", "benign"):
                chosen = [probe for probe in probes if probe.kind == kind][:N_PROBES]
                replies = generate(
                    SteeredEngine(steered),
                    tokenizer,
                    [probe.messages for probe in chosen],
                    steering=Steering(harm_threshold=threshold),
                    temperature=1.0,
                    row_keys=[probe.id for probe in chosen],
                    batch_size=256,
                )
                judged = [judge.judge(probe.messages, reply.text) for probe, reply in zip(chosen, replies, strict=True)]
                hits = [item.leak() is not False if kind == "harmful" else bool(item.success) for item in judged]
                share = wilson(sum(hits), len(hits))
                shares.append(f"{share.estimate:6.1%} ({share.low:.1%} to {share.high:.1%})")
            print(f"{name:8} {threshold:.2f}  " + "   ".join(shares), flush=True)


def _without_ceiling(folder: Path) -> SteeredModel:
    """Open a steered folder without its threshold ceiling, which no bundle allows."""
    opened = SteeredModel.open(folder)
    config = opened.config.model_copy(update={"threshold_ceiling": 1.0})
    return SteeredModel(opened.backbone.model, opened.head, opened.gate, config, end_ids=opened.end_ids).eval()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
