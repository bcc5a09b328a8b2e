"""A comparison as eval logs of inspect_ai, one per system, with the same redaction as the report."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
from inspect_ai.scorer import Score

from prosocial.core.errors import InputError
from prosocial.core.files import storage_errors

Json = Mapping[str, Any]
ROLES: dict[str, type[ChatMessage]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


def write_eval_logs(document: Json, out: Path) -> list[Path]:
    """Write one `.eval` file per system of a comparison.

    Args:
        document: report of `compare_models` (`report.json`), with its table of probes.
        out: folder for the logs, created if missing.

    Returns:
        The paths, in the order of the systems.

    Raises:
        InputError: the report contains no probes.
        StorageError: the folder cannot be written.
    """
    if not document["probes"]:
        raise InputError(
            f"the report {document['title']!r} should contain its probes: write it with `prosocial compare`"
        )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    paths = []
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for system in document["comparison"]["systems"]:
            path = out / f"{system}.eval"
            write_eval_log(eval_log(document, system, created=created), path.as_posix())
            paths.append(path)
    return paths


def eval_log(document: Json, system: str, *, created: str) -> EvalLog:
    """Return the log of one system: replies, judgements, and rates with their intervals."""
    facts, comparison = document["facts"], document["comparison"]
    samples = [_sample(entry, system, judge=comparison["judge"]) for entry in document["probes"]]
    dataset = EvalDataset(name=str(facts.get("probes", "probes")), samples=len(samples), shuffled=False)
    spec = EvalSpec(
        created=created,
        task="prosocial_compare",
        dataset=dataset,
        model=f"prosocial/{facts.get(system, system)}",
        config=EvalConfig(),
        metadata={"system": system, "title": document["title"], "headline": document["headline"]["verdict"], **facts},
    )
    scores = [_rates(comparison["metrics"], system, judge=comparison["judge"])]
    results = EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores)
    return EvalLog(status="success", eval=spec, results=results, samples=samples)


def _rates(metrics: list[Json], system: str, *, judge: str) -> EvalScore:
    rates = {}
    for metric in metrics:
        rate, difference = metric["rates"].get(system), metric["differences"].get(system)
        if rate is not None:
            facts = {"title": metric["title"], "better": metric["better"], "rate": rate, "difference": difference}
            rates[metric["name"]] = EvalMetric(name=metric["name"], value=rate["estimate"], metadata=facts)
    return EvalScore(name="judgement", scorer=judge, metrics=rates)


def _sample(entry: Json, system: str, *, judge: str) -> EvalSample:
    [reply] = [one for one in entry["replies"] if one["system"] == system]
    text = "".join(segment["text"] for segment in reply["segments"])
    conversation = [ROLES[message["role"]](content=message["content"]) for message in entry["messages"]]
    answer = ModelOutput.from_content(system, text)
    facts = {"judge": judge, "harmful": reply["leak"], "refusal": reply["refusal"], "success": reply["success"]}
    scores = {} if reply["leak"] is None else {"judgement": Score(value=int(reply["leak"]), metadata=facts)}
    return EvalSample(
        id=entry["probe"],
        epoch=1,
        input=conversation or f"withheld, digest {entry['digest']}",
        target="",
        messages=[*conversation, answer.message],
        output=answer,
        scores=scores,
        metadata={name: entry[name] for name in ("kind", "category", "change", "prefill")} | {"error": reply["error"]},
    )
