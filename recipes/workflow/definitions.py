"""Parses a Python file into its top-level definitions, with the names and modules that each uses; no code is run."""

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

_MODULE_NAME = re.compile(r"prosocial(\.\w+)+")
EVERYTHING = "*"
PURE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True)
class Import:
    """An imported name.

    Attributes:
        level: number of leading dots of a relative import; 0 for an absolute one.
        module: dotted name of the module; empty for the package itself.
        name: name imported from the module; `*` for all of it.
    """

    level: int
    module: str
    name: str = EVERYTHING


class Definition:
    """A statement at the top level of a file.

    Args:
        statement: syntax tree of the statement, or one of the names that it imports.

    Attributes:
        names: every name that occurs in it.
        imports: every import in it, also those inside functions.
        imports_package: whether it imports a module by a computed name, which may be any module of its package.
        digest: hex SHA-256 of the statement without comments, docstrings and formatting.
    """

    def __init__(self, statement: ast.stmt | Import) -> None:
        self.names: set[str] = set()
        self.imports = {statement} if isinstance(statement, Import) else set[Import]()
        self.imports_package = False
        text = repr(statement if isinstance(statement, Import) else _plain(statement, self))
        self.digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Definitions:
    """The statements at the top level of a file, without those under `if TYPE_CHECKING`.

    Attributes:
        by_name: the statements that bind each name; several if it is bound again.
        effects: the statements with possible side effects, such as a call or a loop that registers something.
    """

    by_name: Mapping[str, list[ast.stmt | Import]]
    effects: list[ast.stmt]

    @classmethod
    def read(cls, source: str) -> "Definitions":
        """Parse a source text.

        Raises:
            SyntaxError: the text is not Python.
        """
        statements = [statement for statement in ast.parse(source).body if not _is_idle(statement)]
        by_name: dict[str, list[ast.stmt | Import]] = defaultdict(list)
        for statement in statements:
            for name, bound in _bindings(statement):
                by_name[name].append(bound)
        effects = [each for each in statements if not (isinstance(each, PURE) and any(_bindings(each)))]
        return cls(by_name, effects)

    def named(self, name: str) -> Iterator[Definition]:
        """Yield the definitions of a name; `*` stands for the whole file, the empty name for side effects."""
        statements: Iterable[ast.stmt | Import] = self.by_name.get(name, ())
        if name == EVERYTHING:
            statements = chain(self.effects, *self.by_name.values())
        elif not name:
            statements = self.effects
        yield from map(Definition, statements)


def _is_idle(statement: ast.stmt) -> bool:
    """Return whether a statement does nothing at run time: a docstring, or imports for the type checker."""
    if isinstance(statement, ast.If):
        is_for_types = getattr(statement.test, "id", getattr(statement.test, "attr", "")) == "TYPE_CHECKING"
        return is_for_types and not statement.orelse
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or isinstance(statement, ast.Pass)


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """Yield the names that an import binds, each with the imported name it refers to."""
    for alias in statement.names:
        if isinstance(statement, ast.Import):
            yield alias.asname or alias.name.partition(".")[0], Import(0, alias.name)
        else:
            yield alias.asname or alias.name, Import(statement.level, statement.module or "", alias.name)


def _bindings(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt | Import]]:
    """Yield the names that a statement binds at the top level, each with the statement or import that binds it."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        yield from _imported(statement)
    else:
        yield from ((name, statement) for name in set(_bound(statement)))


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement and its parts bind, except those inside functions and classes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (name for name, _ in _imported(node))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _plain(node: object, definition: Definition) -> object:
    """Return a syntax tree as lists, the same in every version of Python, and record the names that it uses."""
    if isinstance(node, list):
        return [_plain(item, definition) for item in node if not (isinstance(item, ast.stmt) and _is_idle(item))]
    if isinstance(node, ast.Name):
        definition.names.add(node.id)
        return "Name", node.id
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and _MODULE_NAME.fullmatch(node.value):
            definition.imports.add(Import(0, node.value))  # such as the module of `python -m`
        return "Constant", repr(node.value)
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Import | ast.ImportFrom):
        definition.imports.update(each for _, each in _imported(node))
    elif isinstance(node, ast.Call):
        _record_dynamic_import(node, definition)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
        _drop_annotations(node)
    plain: list[object] = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if value is not None and value != [] and name != "ctx":  # Python versions differ in their empty fields
            plain += name, _plain(value, definition)
    return plain


def _drop_annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Remove the annotations of an undecorated function, which nothing reads at run time."""
    function.returns = None
    for part in ast.walk(function.args):
        if isinstance(part, ast.arg):
            part.annotation = None


def _record_dynamic_import(call: ast.Call, definition: Definition) -> None:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in ("import_module", "__import__"):
        return
    if call.args and isinstance(call.args[0], ast.Constant):
        module = str(call.args[0].value)
        definition.imports.add(Import(len(module) - len(module.lstrip(".")), module.lstrip(".")))
    else:
        definition.imports_package = True
