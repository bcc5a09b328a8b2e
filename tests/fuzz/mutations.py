"""Hypothesis strategies of damaged files: a valid file of each kind, changed where its structure says something.

Each strategy gives the bytes of a file. Most of them still parse, so that the checks behind the parser are met; a few
are damaged as bytes, so that the parser is met too.
"""

import json
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Path = tuple[Any, ...]

DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]

# Values that a careless reader takes for something else.
ODD = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 1e-320]
    ),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), "-1", "1e999", "NaN", "null"]),
    st.sampled_from(["", " ", "\x00", "\x1b[31m", "\u202e", "\ud800", "\ufeff", "a" * 20_000]),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "C:\\x", ".", "con", "~"]),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"a": {}}, ["a"] * 2000, list(range(2000)), DEEP]),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
)


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of a JSON value and of everything in it."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from paths(part, (*at, key))


def _get(value: Any, at: Path) -> Any:
    for key in at:
        value = value[key]
    return value


def _change_once(draw: Draw, value: Any) -> Any:
    """Replace, delete, copy, rename or repeat one part of a JSON value."""
    every = list(paths(value))
    at = draw(st.sampled_from(every))
    if not at:
        return deepcopy(draw(ODD)) if draw(st.integers(0, 9)) == 0 else value
    parent, key = _get(value, at[:-1]), at[-1]
    action = draw(st.sampled_from(("replace", "replace", "replace", "delete", "copy", "rename", "repeat")))
    if action == "delete":
        del parent[key]
    elif action == "copy":
        parent[key] = deepcopy(_get(value, draw(st.sampled_from(every))))
    elif action == "rename" and isinstance(parent, dict):
        name = draw(st.one_of(st.text(max_size=8), st.sampled_from(sorted(parent))))
        parent[name] = parent.pop(key)
    elif action == "repeat" and isinstance(parent, list):
        parent += [deepcopy(parent[key]) for _ in range(draw(st.sampled_from((1, 100))))]
    else:
        parent[key] = deepcopy(draw(ODD))
    return value


def changed_value(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value with one to three changes."""

    @st.composite
    def damaged(draw: Draw) -> Any:
        changed = deepcopy(value)
        for _ in range(draw(st.integers(1, 3))):
            changed = _change_once(draw, changed)
        return changed

    return damaged()


def _text(draw: Draw, value: Any) -> str:
    text = json.dumps(value)
    form = draw(st.integers(0, 19))
    if form == 0 and text.startswith("{") and len(value):
        key = next(iter(value))
        text = "{" + f"{json.dumps(key)}: {json.dumps(draw(ODD))}, " + text[1:]  # the key stands twice
    elif form == 1:
        text = text.replace("1", "1" * 5_000, 1)
    elif form == 2:
        text = text.replace("[", "[" * 50_000, 1)
    elif form == 3:
        text = "\ufeff" + text
    return text


def damaged_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes cut short, with some overwritten, inserted, removed or repeated."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        at = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(("cut", "set", "insert", "remove", "repeat", "empty")))
        some = draw(st.binary(min_size=1, max_size=16))
        if action == "cut":
            return data[:at]
        if action == "set":
            return data[:at] + some + data[at + len(some) :]
        if action == "insert":
            return data[:at] + some + data[at:]
        if action == "remove":
            return data[:at] + data[at + len(some) :]
        return data + data[at:] if action == "repeat" else b""

    return damaged()


def json_files(data: bytes) -> st.SearchStrategy[bytes]:
    """A changed JSON document."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        if draw(st.integers(0, 9)) == 0:
            return draw(damaged_bytes(data))  # type: ignore[no-any-return]
        return _text(draw, draw(changed_value(json.loads(data)))).encode("utf-8", "surrogatepass")

    return damaged()


def jsonl_files(data: bytes) -> st.SearchStrategy[bytes]:
    """Rows of JSON, some of them changed, with odd ends of lines."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        if draw(st.integers(0, 9)) == 0:
            return draw(damaged_bytes(data))  # type: ignore[no-any-return]
        lines = data.decode("utf-8").splitlines()[:6]
        rows = [json.loads(line) for line in lines]
        for _ in range(draw(st.integers(1, 2))):
            index = draw(st.integers(0, len(rows) - 1))
            lines[index] = _text(draw, draw(changed_value(rows[index])))
        if draw(st.integers(0, 9)) == 0:
            lines.append(lines[index])
        end = draw(st.sampled_from(("\n", "\n", "\n", "\r\n", "\n\n", "\u2028", "\u0085")))
        return end.join(lines).encode("utf-8", "surrogatepass")

    return damaged()


def yaml_files(data: bytes) -> st.SearchStrategy[bytes]:
    """A changed YAML document, with the anchors, tags and odd scalars of YAML."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        import yaml

        if draw(st.integers(0, 9)) == 0:
            return draw(damaged_bytes(data))  # type: ignore[no-any-return]
        text = json.dumps(draw(changed_value(yaml.safe_load(data))))  # JSON is YAML
        form = draw(st.integers(0, 9))
        if form == 0:
            text = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
            )
        elif form == 1:
            text = text.replace('"', "!!python/name:os.system '", 1)
        elif form == 2:
            text = f"? {text}\n: 1\n"
        return text.encode("utf-8", "surrogatepass")

    return damaged()


def safetensors_files(data: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file with a changed header, header length or data."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header, body = data[8 : 8 + length], data[8 + length :]
        form = draw(st.integers(0, 9))
        if form == 0:
            return draw(damaged_bytes(data))  # type: ignore[no-any-return]
        if form == 1:
            wrong = draw(st.sampled_from((0, 1, 2, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, len(data))))
            return struct.pack("<Q", wrong) + header + body
        if form == 2:
            return data[: 8 + length] + draw(damaged_bytes(body))  # type: ignore[no-any-return]
        changed = _text(draw, draw(changed_value(json.loads(header)))).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(changed)) + changed + body

    return damaged()


def protobuf_files(data: bytes, message: Any) -> st.SearchStrategy[bytes]:
    """A protobuf (ONNX) with one to three fields changed by its own schema."""

    @st.composite
    def damaged(draw: Draw) -> bytes:
        if draw(st.integers(0, 9)) == 0:
            return draw(damaged_bytes(data))  # type: ignore[no-any-return]
        whole = message()
        whole.ParseFromString(data)
        for _ in range(draw(st.integers(1, 3))):
            _change_message(draw, whole)
        return bytes(whole.SerializePartialToString())

    return damaged()


def _change_message(draw: Draw, message: Any) -> None:
    """Walk from a message into a random part, and change one of its fields."""
    while True:
        fields = message.ListFields()
        if not fields:
            return
        field, value = draw(st.sampled_from(list(fields)))
        nested = field.message_type is not None
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        if nested and draw(st.integers(0, 9)) > 0:
            message = value[draw(st.integers(0, len(value) - 1))] if many else value
            continue
        if many:
            index = draw(st.integers(0, len(value) - 1))
            action = draw(st.sampled_from(("delete", "repeat", "set")))
            if action == "delete":
                del value[index]
            elif action == "repeat" or nested:
                value.append(value[index]) if not nested else value.add().CopyFrom(value[index])
            else:
                value[index] = _odd_scalar(draw, value[index])
        elif nested:
            message.ClearField(field.name)
        elif field.enum_type is not None:  # an unknown value of an enumeration cannot be set
            setattr(message, field.name, draw(st.sampled_from([value.number for value in field.enum_type.values])))
        else:
            setattr(message, field.name, _odd_scalar(draw, value))
        return


def _odd_scalar(draw: Draw, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.sampled_from((0, 1, -1, 7, 16, 2**31 - 1, -(2**31), value + 1, value - 1)))
    if isinstance(value, float):
        return draw(st.sampled_from((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    if isinstance(value, bytes):
        return draw(damaged_bytes(value)) if value else b"\x00"
    return draw(st.one_of(st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(("", "../x", "logits"))))
