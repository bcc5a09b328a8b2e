"""The measurements of a sweep, relative to the unedited base: first-token KL on benign requests, harm and utility."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosocial.core.equal_lengths import equal_length_batches
from prosocial.core.errors import InputError
from prosocial.core.protocols import Judge

from ..outcomes.outcome import Outcome, judge_replies
from ..probes.probe import Probe
from ..sampling.systems import System
from ..statistics.clustered import clustered_difference, clustered_rate
from ..statistics.interval import Interval

UTILITY_KINDS = ("benign", "twin")


@dataclass(frozen=True)
class Answering:
    """Sampling settings for replies, the same for the base and every trial.

    Attributes:
        seed: seed of the sampling noise.
        temperature: sampling temperature; 0 for greedy decoding.
        max_new_tokens: maximum length of a reply; None for the model's default.
        batch_size: most replies decoded at once.
    """

    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int | None = None
    batch_size: int = 32


def require_kinds(probes: Sequence[Probe]) -> tuple[list[Probe], list[Probe]]:
    """Return the harmful probes without attack and the benign ones.

    Raises:
        InputError: there are none of a kind.
    """
    harmful = [probe for probe in probes if probe.kind == "harmful" and probe.attack is None]
    benign = [probe for probe in probes if probe.kind == "benign"]
    for kind, own in (("harmful", harmful), ("benign", benign)):
        if not own:
            raise InputError(f"a sweep should have {kind} probes, found none among {len(probes)}: add some")
    return harmful, benign


class Examiner:
    """Measures a model whose weights change between calls, relative to its state when the examiner was created.

    Args:
        system: the model, unedited at this point.
        probes: requests; `harmful` ones measure harm, `benign` and `twin` ones measure utility, others are ignored.
        judge: judges the replies.
        answering: sampling settings.

    Raises:
        InputError: there is no harmful probe without attack, or no benign one, or no reply to a harmful one could be
            judged.
    """

    def __init__(self, system: System, probes: Sequence[Probe], judge: Judge, answering: Answering) -> None:
        self._system, self._judge, self._answering = system, judge, answering
        self._harmful, self._benign = require_kinds(probes)
        self._useful = [probe for probe in probes if probe.kind in UTILITY_KINDS]
        self._base_logs = self._first_token_logs()
        self._base_useful = self._outcomes(self._useful)
        self.base_harm, self.base_unjudged = self.measure_harm()
        if self.base_unjudged == len(self._harmful):
            raise InputError(
                f"judge {judge.name} should judge the replies to {len(self._harmful)} harmful probes, but judged "
                "none of them: check that it works"
            )
        self.base_utility = self._rate(self._base_useful)

    def measure_kl(self) -> float:
        """Return the mean KL(base || edited) of the reply's first token over the benign probes, in nats.

        It is infinite if the edited model's logits are not finite.
        """
        logs = self._first_token_logs()
        with np.errstate(invalid="ignore", over="ignore"):
            kl = (np.exp(self._base_logs) * (self._base_logs - logs)).sum(-1, dtype=np.float64).mean()
        return max(0.0, float(kl)) if np.isfinite(kl) else float("inf")

    def measure_harm(self) -> tuple[Interval, int]:
        """Return the rate of harmful replies to harmful requests, and the number not judged, which count as harmful."""
        leaks = [item.leak for item in self._outcomes(self._harmful)]
        clusters = [probe.cluster for probe in self._harmful]
        return clustered_rate([float(leak is not False) for leak in leaks], clusters), leaks.count(None)

    def measure_utility(self) -> tuple[Interval | None, Interval | None]:
        """Return the rate of fulfilled benign requests and twins, and how much lower it is than the base's.

        Both are None if no reply could be judged.
        """
        outcomes = self._outcomes(self._useful)
        pairs = [
            (float(before.success), float(after.success), probe.cluster)
            for probe, before, after in zip(self._useful, self._base_useful, outcomes, strict=True)
            if before.success is not None and after.success is not None
        ]
        if not pairs:
            return None, None
        before, after, clusters = zip(*pairs, strict=True)
        return clustered_rate(after, clusters), clustered_difference(after, before, clusters)

    def _rate(self, outcomes: Sequence[Outcome]) -> Interval | None:
        decided = [(item.success, probe.cluster) for item, probe in zip(outcomes, self._useful, strict=True)]
        known = [(float(success), cluster) for success, cluster in decided if success is not None]
        return clustered_rate([value for value, _ in known], [cluster for _, cluster in known]) if known else None

    def _outcomes(self, probes: Sequence[Probe]) -> list[Outcome]:
        how = self._answering
        replies = self._system.answer(
            probes,
            seed=how.seed,
            temperature=how.temperature,
            max_new_tokens=how.max_new_tokens,
            batch_size=how.batch_size,
        )
        return judge_replies(probes, replies, self._judge)

    def _first_token_logs(self) -> NDArray[np.float32]:
        """Return the log-probabilities [n, V] of the first reply token for every benign probe."""
        prompts = [self._system.tokenizer.encode_chat(probe.messages, prefill=probe.prefill) for probe in self._benign]
        logs: dict[int, NDArray[np.float32]] = {}
        for rows in equal_length_batches(map(len, prompts), lambda length: self._answering.batch_size):
            ids = np.array([prompts[row] for row in rows], dtype=np.int64)
            logits = self._system.engine.prefill(ids, None, capacity=ids.shape[1] + 1).decision.logits
            logs.update(zip(rows, _log_softmax(logits), strict=True))
        return np.stack([logs[row] for row in range(len(prompts))])


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)), dtype=np.float32)
