"""Probes are read as written, and every fault names its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.evaluation.probes.probe import KINDS, Probe, read_probes, write_probes

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
PROBES = st.builds(
    Probe,
    id=WORDS,
    messages=st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": WORDS}),
        min_size=1,
        max_size=3,
    ).map(tuple),
    kind=st.sampled_from(KINDS),
    category=st.none() | WORDS,
    cluster=WORDS,
    twin_of=st.none() | WORDS,
    prefill=st.just("") | WORDS,
    attack=st.none() | WORDS,
    extra=st.dictionaries(st.sampled_from(["source", "note"]), st.integers() | WORDS),
)


@given(st.lists(PROBES, min_size=1, max_size=5, unique_by=lambda probe: probe.id))
def test_probes_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, probes: list[Probe]) -> None:
    path = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    write_probes(path, probes)
    assert read_probes(path) == probes


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_separator_inside_a_text_ends_no_line(tmp_path: Path, mark: str) -> None:
    line = '{"id": "%s", "kind": "benign", "text": "one' + mark + 'two"}'
    assert [probe.text for probe in _read(tmp_path, line % "a", "", line % "b")] == [f"one{mark}two"] * 2
    with pytest.raises(InputError, match=r"line 3 should have its own id.* of line 1"):
        _read(tmp_path, line % "a", "", line % "a")


def _read(tmp_path: Path, *lines: str) -> list[Probe]:
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_probes(path)


def test_text_is_short_for_one_user_message(tmp_path: Path) -> None:
    (probe,) = _read(tmp_path, '{"id": "a", "kind": "twin", "text": "Hi", "twin_of": "h", "weight": 2}')
    assert probe.messages == ({"role": "user", "content": "Hi"},)
    assert probe.text == "Hi"
    assert probe.cluster == "h"  # it shares the topic of what it resembles
    assert probe.extra == {"weight": 2}


def test_a_probe_alone_is_its_own_cluster(tmp_path: Path) -> None:
    assert _read(tmp_path, '{"id": "a", "kind": "benign", "text": "Hi"}')[0].cluster == "a"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"kind": "benign", "text": "x"}', "'id'"),
        ('{"id": "a", "text": "x"}', "'kind'"),
        ('{"id": "a", "kind": "benign"}', "either 'text' or 'messages'"),
        ('{"id": "a", "kind": "benign", "text": "x", "messages": []}', "either 'text' or 'messages'"),
        ('{"id": "a", "kind": "benign", "messages": []}', "list with at least one message"),
        ('{"id": "a", "kind": "benign", "messages": [{"role": "root", "content": "x"}]}', "role of"),
        ('{"id": "a", "kind": "benign", "text": 3}', "a text as its content"),
        ('{"id": "a", "kind": "benign", "text": "x", "cluster": 3}', "'cluster'"),
        ('{"id": "first", "kind": "benign", "text": "x"}', "of line 2"),
        ("[]", "object"),
    ],
)
def test_a_fault_names_its_line(tmp_path: Path, line: str, says: str) -> None:
    """The blank first line counts: the number is the editor's."""
    with pytest.raises(InputError, match="line 3") as caught:
        _read(tmp_path, "", '{"id": "first", "kind": "benign", "text": "x"}', line)
    assert says in str(caught.value)


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one row"):
        _read(tmp_path, "")
    with pytest.raises(InputError, match="none"):
        read_probes(tmp_path / "nowhere.jsonl")
