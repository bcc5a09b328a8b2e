"""Parses YAML safely into plain values: a repeated key is an error, and `1e-4` is a number."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from prosocial.core.errors import InputError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader of YAML 1.1, which also rejects repeated keys and reads `1e-4` as a number."""

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


def read_yaml(text: str, *, where: str) -> Any:
    """Return the value of a YAML document.

    Args:
        text: the document.
        where: what the text is, for error messages.

    Raises:
        InputError: the text is not YAML, or a mapping repeats a key; the message has `where`, line and column.

    Examples:
        >>> read_yaml("learning_rate: 1e-4", where="the example")
        {'learning_rate': 0.0001}
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InputError(f"{where}{place} should be YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} should be YAML: {' '.join(str(error).split())}") from None
