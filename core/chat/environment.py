"""The jinja2 environment of chat templates: what transformers' environment offers, in a sandbox with bounds.

The texts of the template itself are compiled to `SourcedText` with the source `TEMPLATE`, and every operation that
joins or formats texts keeps the sources; a rendering therefore says which of its characters callers wrote. Templates
come from strangers: loops, text lengths, powers and formats are bounded.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from jinja2 import Environment, TemplateError, nodes, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from .sourced_text import LONGEST, TEMPLATE, SourcedText, joined, mapped_texts

# What compiling and rendering a template can raise: jinja2's own errors, and those of the expressions in the template.
TEMPLATE_FAILURES = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # RecursionError too
    SyntaxError,  # what Python says of blocks that are nested too deep
    TypeError,
    ValueError,
)
BUDGET = " budget"  # no template can name or set a variable that starts with a space
MAX_STEPS = 100_000  # turns of loops and calls of macros in one rendering
MAX_SECONDS = 5.0
MAX_ITEMS = 1_000_000  # of a list
MAX_WIDTH = 10_000  # of padding, of a batch
PADDING = ("ljust", "rjust", "center", "zfill", "expandtabs")
BOUNDED_FILTERS = ("batch", "center", "indent", "round", "slice", "truncate", "wordwrap")
WIDE_DATE = re.compile(r"%[^a-zA-Z%]*\d{3}")


class Budget:
    """What one rendering may still do: a number of steps, and a time."""

    def __init__(self) -> None:
        self._n_steps, self._end = 0, time.monotonic() + MAX_SECONDS

    def spend(self) -> None:
        """Count one step.

        Raises:
            TemplateError: there were too many steps, or they took too long.
        """
        self._n_steps += 1
        if self._n_steps > MAX_STEPS or (self._n_steps % 256 == 0 and time.monotonic() > self._end):
            raise TemplateError(f"it should end within {MAX_STEPS} turns of its loops and {MAX_SECONDS:g} s")


class SourcedCodeGenerator(CodeGenerator):
    """Compiles the texts of a template to `SourcedText`, and counts the turns of its loops."""

    environment: "ChatEnvironment"

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802 (jinja2's name)
        """Write a constant."""
        value = node.as_const(frame.eval_ctx)
        holds_text = isinstance(value, str | list | tuple | dict)
        self.write(self._literal(value) if holds_text else repr(value))

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:  # noqa: N802 (jinja2's name)
        """Write text that stands outside of tags."""
        self.write(self._literal(node.data))

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 (jinja2's name)
        """Write a chain of `~`."""
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 (jinja2's name)
        """Write a loop that counts its turns."""
        node.body.insert(0, _spending(node))
        super().visit_For(node, frame)

    def macro_body(self, node: Any, frame: Frame) -> Any:
        """Write a macro that counts its calls."""
        node.body.insert(0, _spending(node))
        return super().macro_body(node, frame)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._literal("".join(map(str, group)))

    def _literal(self, value: Any) -> str:
        self.environment.literals.append(mapped_texts(value, lambda text: SourcedText.of(text, TEMPLATE)))
        return f"environment.literals[{len(self.environment.literals) - 1}]"


class GenerationTag(Extension):
    """`{% generation %}` … `{% endgeneration %}`, which marks what a model is trained on; it renders its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one chat template."""

    code_generator_class = SourcedCodeGenerator
    concat = staticmethod(joined)
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols])
        self.literals: list[Any] = []
        self.filters |= {name: _bounded(FILTERS[name]) for name in BOUNDED_FILTERS}
        self.filters |= {"tojson": _to_json, "join": _join, "safe": str}
        self.globals["raise_exception"] = _raise_template_error
        del self.globals["lipsum"]

    def spend(self, context: Context) -> None:
        """Count one step of a rendering."""
        context.resolve_or_missing(BUDGET).spend()

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse operations that would take gigabytes or hours."""
        if operator == "**" and not (abs(right) <= 64 and abs(left) <= LONGEST):
            raise TemplateError("a power should have an exponent of at most 64")
        if operator == "+" and isinstance(left, list | tuple):
            _require_items(len(left) + len(right))
        if operator == "*":
            for sequence, n in ((left, right), (right, left)):
                if isinstance(sequence, list | tuple | str):
                    _require_items(len(sequence) * n)
        if operator == "%" and isinstance(left, str):
            return SourcedText(left) % right
        return self.binop_table[operator](left, right)

    def call(__self, __context: Context, __callee: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what the sandbox permits; padding has a limit."""
        if getattr(__callee, "__name__", None) in PADDING:
            _require_width(args)
        return super().call(__context, __callee, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `text.format` as a function that keeps sources."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ == "format_map":
            return wrapped
        text = SourcedText(value.__self__)
        return lambda *args, **values: text.formatted(SandboxedFormatter(self), args, values)


def date_format(now: datetime) -> Callable[[str], str]:
    """Return `strftime_now` for one time, so that a rendering has one clock."""

    def strftime_now(format: str) -> str:
        if WIDE_DATE.search(format) or len(format) > MAX_WIDTH:
            raise TemplateError(f"a date should have a shorter format than {format!r:.80}")
        return now.strftime(format)

    return strftime_now


def _spending(node: nodes.Node) -> nodes.Stmt:
    spend = nodes.EnvironmentAttribute("spend")
    return nodes.ExprStmt(nodes.Call(spend, [nodes.ContextReference()], [], None, None), lineno=node.lineno)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON as transformers' templates expect it: no HTML escapes."""
    _require_width((indent,))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    return SourcedText(d).join(map(str, items))


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _require_width((*args[1:], *kwargs.values()))
        return function(*args, **kwargs)

    # what jinja2 passes first (environment, context) is marked by an attribute of the function
    bounded.__dict__.update(function.__dict__)
    return bounded


def _require_width(values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and value > MAX_WIDTH for value in values):
        raise TemplateError(f"a width should be at most {MAX_WIDTH}")


def _require_items(n: int) -> None:
    if n > MAX_ITEMS:
        raise TemplateError(f"a list should have at most {MAX_ITEMS} items, one would have {n}")


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)
