"""Parses YAML safely into plain values: a repeated key is an error, and `1e-4` is a number."""

import re
from collections.abc import Hashable, Sequence
from typing import Any

import yaml

from .errors import InputError

LONGEST_TEXT = 1 << 18  # characters
MOST_VALUES = 100_000  # with each alias counted as often as it is used
LONGEST_NUMBER = 64  # characters
DEEPEST = 50
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_HALF = re.compile("[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader of YAML 1.1, which also rejects repeated keys and reads `1e-4` as a number.

    Its documents have bounded size and depth, also with all aliases expanded.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it should be at most {DEEPEST} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count_values(node, {}, ())
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 requires a decimal point in every float, so PyYAML reads `1e-4` as text; YAML 1.2 does not.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def _count_values(node: yaml.Node, counts: dict[int, int], parents: Sequence[int]) -> int:
    """Return the number of values below a node; an anchored node counts again for each alias.

    Raises:
        ComposerError: there are too many, a node contains itself, or a number is too long.
    """
    if id(node) in parents:
        raise yaml.composer.ComposerError(None, None, "an anchor should not contain itself", node.start_mark)
    if id(node) not in counts:
        is_number = isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS
        if is_number and len(node.value) > LONGEST_NUMBER:
            what = f"a number should have at most {LONGEST_NUMBER} characters"
            raise yaml.composer.ComposerError(None, None, what, node.start_mark)
        if isinstance(node, yaml.ScalarNode) and _HALF.search(node.value):
            what = "a text should be valid Unicode: it has half a character"
            raise yaml.composer.ComposerError(None, None, what, node.start_mark)
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        items = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in pairs for each in pair]
        counts[id(node)] = 1 + sum(_count_values(item, counts, (*parents, id(node))) for item in items)
        if counts[id(node)] > MOST_VALUES:
            what = f"it should have at most {MOST_VALUES} values, aliases expanded"
            raise yaml.composer.ComposerError(None, None, what, node.start_mark)
    return counts[id(node)]


def read_yaml(text: str, *, where: str) -> Any:
    """Return the value of a YAML document.

    Args:
        text: the document.
        where: what the text is, for error messages.

    Raises:
        InputError: the text is not YAML, a mapping repeats a key, or the document is too large or too deep; the message
            has `where`, line and column.

    Examples:
        >>> read_yaml("learning_rate: 1e-4", where="the example")
        {'learning_rate': 0.0001}
    """
    if len(text) > LONGEST_TEXT:
        raise InputError(f"{where} should have at most {LONGEST_TEXT} characters, found {len(text)}")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InputError(f"{where}{place} should be YAML: {error.problem!s:.200}") from None
    except (ValueError, TypeError, RecursionError) as error:  # a date or number that does not exist
        raise InputError(f"{where} should be YAML: {' '.join(str(error).split()):.200}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} should be YAML: {' '.join(str(error).split()):.200}") from None
