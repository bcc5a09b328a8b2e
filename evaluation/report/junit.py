"""Verdicts as JUnit XML for CI systems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from prosocial.core.files import written_alone

PASSING = ("pass", "confirmed", "confirmed within rounding")


@dataclass(frozen=True)
class TestCase:
    """One gate, level or tensor as a test case.

    Attributes:
        name: name of the test case.
        verdict: its verdict; every verdict except a pass, including `cannot say`, is a failure of that type.
        message: explanation of the verdict.
    """

    __test__ = False  # keeps pytest from collecting a class of this name

    name: str
    verdict: str
    message: str


def write_junit(path: Path, suite: str, cases: Sequence[TestCase]) -> None:
    """Write one suite of test cases as XML.

    Raises:
        StorageError: the file cannot be written.
    """
    with written_alone(path) as aside:
        aside.write_text(junit(suite, cases), encoding="utf-8")


def junit(suite: str, cases: Sequence[TestCase]) -> str:
    """Return one suite of test cases as XML.

    Examples:
        >>> print(junit("s", [TestCase("a", "pass", "")]))
        <testsuites>
          <testsuite name="s" tests="1" failures="0" errors="0" skipped="0">
            <testcase classname="s" name="a" />
          </testsuite>
        </testsuites>
    """
    root = Element("testsuites")
    failures = [case for case in cases if case.verdict not in PASSING]
    counts: dict[str, Any] = {"tests": str(len(cases)), "failures": str(len(failures)), "errors": "0", "skipped": "0"}
    parent = SubElement(root, "testsuite", name=suite, **counts)
    for case in cases:
        entry = SubElement(parent, "testcase", classname=suite, name=_printable(case.name))
        if case in failures:
            message = f"{case.verdict}: {_printable(case.message)}"
            SubElement(entry, "failure", type=case.verdict, message=message)
    indent(root)
    return tostring(root, encoding="unicode")


def parity_cases(document: Mapping[str, Any]) -> list[TestCase]:
    """Return the gates of a parity report's JSON as test cases."""
    first = document["first_difference"]
    where = "" if first is None else f"; first difference at {first['place']}"
    return [
        TestCase(
            f"{gate['name']}: {gate['title']}",
            gate["verdict"],
            f"observed {gate['observed']}, at most {gate['threshold']} (set by {gate['set_by']}) {gate['note']}{where}",
        )
        for gate in document["gates"]
    ]


def audit_cases(document: Mapping[str, Any]) -> list[TestCase]:
    """Return the levels, tensors and side files of an audit's JSON as test cases."""
    cases = [
        TestCase(f"level {level['level']}: {level['title']}", level["verdict"], "; ".join(level["reasons"]))
        for level in document["levels"]
    ]
    cases += [TestCase(each["name"], each["verdict"], each["reason"]) for each in document["tensors"]]
    cases += [
        TestCase(f"{each['part']}: {each['file']}", "cannot say", each["difference"])
        for each in document["side_files"] or ()
    ]
    return cases or [TestCase("levels", document["verdict"], "nothing could be checked")]


def _printable(text: str) -> str:
    """Remove characters that XML 1.0 cannot represent."""
    return "".join(letter for letter in text if letter in "\t\n" or (letter >= " " and letter not in "\ufffe\uffff"))
