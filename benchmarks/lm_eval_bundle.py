"""A plain bundle as a model of lm-evaluation-harness; run as a script, scores one model on a multiple-choice task.

    python benchmarks/lm_eval_bundle.py bundle FOLDER TASK.jsonl      (or: hf FOLDER TASK.jsonl)

Prints one line of JSON: metrics, and the log-likelihood of every choice in order. A steered bundle is rejected: its
logits are minus infinity outside the safe set, so log-likelihoods are meaningless.
"""

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api.model import LM, TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from prosocial.core.errors import InputError
from prosocial.export import Bundle


class BundleLM(TemplateLM):
    """Log-likelihoods under a plain bundle, one request at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.bundle = Bundle.open(folder)
        if self.bundle.config is not None:
            raise InputError(f"{folder} should be a plain bundle: export it with --plain")

    @property
    def eot_token_id(self) -> int:
        """The token that is used for an empty context."""
        return self.bundle.tokenizer.end_ids[0]

    def tok_encode(self, string: str, **_: Any) -> list[int]:
        """Encode text without recognising control tokens."""
        return self.bundle.tokenizer.encode_text(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return [self._log_likelihood(context, continuation) for _, context, continuation in requests]

    def _log_likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        ids, n = np.array([context + continuation[:-1]]), len(continuation)
        session = self.bundle.session
        results, _ = session.run(ids, 0, session.new_cache(1, ids.shape[1]), None, n)
        logits = results["logits"][0].astype(np.float64)  # [n, V]
        top = logits.max(-1)
        normaliser = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        chosen = logits[np.arange(n), continuation] - normaliser
        return float(chosen.sum()), bool((logits.argmax(-1) == continuation).all())

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Not used by multiple-choice tasks."""
        raise NotImplementedError("this adapter supports only multiple-choice tasks")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Not used by multiple-choice tasks."""
        raise NotImplementedError("this adapter supports only multiple-choice tasks")


def task_of(path: Path) -> dict[str, Any]:
    """Return the task of a JSONL file."""
    return {
        "task": "lab_replies",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }


def main() -> None:
    backend, folder, task = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    model: LM = BundleLM(folder) if backend == "bundle" else HFLM(pretrained=str(folder), device="cpu", dtype="float32")
    manager = TaskManager(include_defaults=False)  # the harness would read thousands of task files first
    scored = lm_eval.simple_evaluate(model=model, tasks=[task_of(task)], task_manager=manager, bootstrap_iters=0)
    results, samples = scored["results"]["lab_replies"], scored["samples"]["lab_replies"]
    metrics = {name: value for name, value in results.items() if name.endswith(",none") and isinstance(value, float)}
    likelihoods = [float(reply[0]) for sample in samples for reply in sample["filtered_resps"]]
    print(json.dumps({"metrics": metrics, "log_likelihoods": likelihoods}))


if __name__ == "__main__":
    main()
