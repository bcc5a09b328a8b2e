"""Formats of public probe sets: the columns that identify each, and the conversion of its rows to probes."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .probe import Probe

Row = Mapping[str, Any]
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True)
class ProbeFormat:
    """The format of a public probe set.

    Attributes:
        name: name of the set.
        columns: columns that identify the format, in lower case.
        probe: converts a row, with keys in lower case, and its index into a probe; None to skip the row.
    """

    name: str
    columns: frozenset[str]
    probe: Callable[[Row, int], Probe | None]


def _request(
    identity: str, text: str, kind: str, *, category: str | None = None, system: str = "", **more: Any
) -> Probe:
    messages = [{"role": "system", "content": system}] if system else []
    extra = {key: value for key, value in more.pop("extra", {}).items() if value not in (None, "")}
    return Probe(
        identity, (*messages, {"role": "user", "content": text}), kind, category=category or None, extra=extra, **more
    )


def _adv_bench(row: Row, number: Any) -> Probe:
    number = row.get("original index") or number  # the subset in the PAIR paper keeps the indices of the full set
    return _request(f"advbench-{number}", row["goal"], "harmful", category=row.get("category"))


def _harm_bench(row: Row, number: int) -> Probe:
    context = row.get("contextstring") or ""
    text = f"{context}\n\n{row['behavior']}" if context else row["behavior"]
    identity = row.get("behaviorid") or str(number)
    extra = {"functional_category": row.get("functionalcategory"), "tags": row.get("tags")}
    return _request(f"harmbench-{identity}", text, "harmful", category=row.get("semanticcategory"), extra=extra)


def _strong_reject(row: Row, number: int) -> Probe:
    return _request(
        f"strongreject-{number}",
        row["forbidden_prompt"],
        "harmful",
        category=row["category"],
        extra={"source": row["source"]},
    )


def _jailbreak_bench(row: Row, number: int) -> Probe:
    """Convert a row; harmful rows have a target, and the benign row with the same index is the twin."""
    index = row.get("index") or row.get("") or str(number)
    more = {"category": row["category"], "extra": {"behavior": row["behavior"]}}
    if row.get("target") and row.get("split", "harmful") != "benign" and "source" in row:
        return _request(f"jbb-harmful-{index}", row["goal"], "harmful", **more)
    return _request(f"jbb-benign-{index}", row["goal"], "twin", twin_of=f"jbb-harmful-{index}", **more)


def _xs_test(row: Row, number: int) -> Probe:
    """Convert a row; safe prompts are twins, `contrast_` types are unsafe, and a focus word is a cluster."""
    is_harmful = row["type"].startswith("contrast") or row.get("label") == "unsafe"
    kind = row["type"].removeprefix("contrast_")
    identity = row.get("id") or row.get("id_v2") or str(number)
    cluster = f"xstest-{row['focus']}" if row.get("focus") else ""
    return _request(
        f"xstest-{identity}", row["prompt"], "harmful" if is_harmful else "twin", category=kind, cluster=cluster
    )


def _do_not_answer(row: Row, number: int) -> Probe:
    extra = {"risk_area": row["risk_area"], "specific_harms": row.get("specific_harms")}
    return _request(
        f"dna-{row.get('id') or number}", row["question"], "harmful", category=row["types_of_harm"], extra=extra
    )


def _simple_safety_tests(row: Row, number: int) -> Probe:
    text = row.get("prompts_final") or row.get("prompt")
    return _request(
        row.get("id") or f"sst-{number}",
        str(text),
        "harmful",
        category=row["harm_area"],
        extra={"form": row["category"]},
    )


def _cosa_pien(row: Row, number: int) -> Probe:
    """Convert a row; the scenario is the system message, requests that it allows are benign and the others harmful."""
    kind = {"safe": "benign", "allowed": "benign", "partial": "partial"}.get(row["type"], "harmful")
    cluster = f"cosapien-{_digest(row['scenario'])}-{number}"
    return _request(
        f"cosapien-{number}",
        row["prompt"],
        kind,
        system=row["scenario"],
        cluster=cluster,
        extra={"type": row["type"], "scenario": _digest(row["scenario"])},
    )


def _cosalign_test(row: Row, number: int) -> Probe:
    """Convert a row; whether the request is harmful depends on the categories that its safety config allows."""
    allowed = row["allowed"]
    allowed = allowed if isinstance(allowed, bool) else str(allowed).lower() in ("true", "yes", "1")
    categories = row.get("prompt_categories") or ()
    named = [categories] if isinstance(categories, str) else list(categories)
    return _request(
        f"cosalign-{number}",
        row["prompt"],
        "benign" if allowed else "harmful",
        category=None if allowed or not named else str(named[0]),
        cluster=f"cosalign-{_digest(row['prompt'])}",  # the same prompt occurs under several configs
        extra={"config_allowed": row["config_allowed"], "situation": row.get("situation"), "group": row.get("group")},
    )


def _hh_rlhf(row: Row, number: int) -> Probe | None:
    """Convert a row to its conversation up to the last human turn; most requests of the harmless part are harmful."""
    turns = _TURN.split(row["chosen"])[1:]
    messages: list[dict[str, str]] = []
    for speaker, text in zip(turns[::2], turns[1::2], strict=True):
        messages.append({"role": "user" if speaker == "Human" else "assistant", "content": text.strip()})
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages or not all(message["content"] for message in messages):
        return None
    return Probe(f"hh-{number}", tuple(messages), "harmful")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _columns(*names: str) -> frozenset[str]:
    return frozenset(names)


# The first format whose columns are all present is used, so the more specific ones come first.
FORMATS: Sequence[ProbeFormat] = (
    ProbeFormat("HarmBench", _columns("behavior", "functionalcategory", "semanticcategory"), _harm_bench),
    ProbeFormat("JailbreakBench", _columns("goal", "behavior", "category"), _jailbreak_bench),
    ProbeFormat("AdvBench", _columns("goal", "target"), _adv_bench),
    ProbeFormat("StrongREJECT", _columns("forbidden_prompt", "category", "source"), _strong_reject),
    ProbeFormat("SimpleSafetyTests", _columns("harm_area", "category", "counter"), _simple_safety_tests),
    ProbeFormat("Do-Not-Answer", _columns("risk_area", "types_of_harm", "question"), _do_not_answer),
    ProbeFormat("CoSAlign-Test", _columns("prompt", "config_allowed", "allowed"), _cosalign_test),
    ProbeFormat("CoSApien", _columns("prompt", "scenario", "type"), _cosa_pien),
    ProbeFormat("XSTest", _columns("prompt", "type", "focus"), _xs_test),
    ProbeFormat("HH-RLHF", _columns("chosen", "rejected"), _hh_rlhf),
)
