"""Locates the source files of modules and the data files beside them, without importing them (torch-free)."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from prosocial.core.files import sha256_file

from .definitions import Definitions, Import

PACKAGE = "prosocial"
DATA_SUFFIXES = (".c", ".h", ".yaml", ".j2", ".json", ".safetensors")
INIT = "__init__.py"


class SourceTree:
    """The source files of the package; each is read once.

    Args:
        roots: folder of each sub-package of `prosocial`, by name; None for the installed ones.
    """

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        self._roots: dict[str, Path | None] = dict(roots or {})
        self._definitions: dict[Path, Definitions] = {}
        self._data: dict[Path, set[tuple[str, str]]] = {}
        self._labels: dict[Path, str] = {}

    def file(self, module: str, *, base: Path | None = None) -> Path | None:
        """Return the file of a module of the package, or None for a module of another package.

        Args:
            module: dotted name.
            base: folder that the name is relative to; None for an absolute name.
        """
        if base is None:
            package, _, rest = module.partition(".")
            name, _, module = rest.partition(".")
            base = self._root(name) if package == PACKAGE else None
        if base is None:
            return None
        path = base.joinpath(*module.split(".")) if module else base
        module_file = path.with_name(f"{path.name}.py")
        file = module_file if module and module_file.is_file() else path / INIT
        return file if file.is_file() else None

    def imported(self, reference: Import, *, by: Path) -> Path | None:
        """Return the file that an import refers to, or None for a module of another package.

        Args:
            reference: the import.
            by: file that contains the import; from outside the package, it may also import modules in its folder.
        """
        if reference.level:
            return self.file(reference.module, base=by.parents[reference.level - 1])
        path = self.file(reference.module)
        return self.file(reference.module, base=by.parent) if path is None and self._root_of(by) is None else path

    def definitions(self, path: Path) -> Definitions:
        """Return the definitions of a file."""
        if path not in self._definitions:
            lines = [file.read_text(encoding="utf-8") for file in (path, path.with_suffix(".pyi")) if file.is_file()]
            self._definitions[path] = Definitions.read("\n".join(lines))  # the stub lists a package's public names
        return self._definitions[path]

    def label(self, path: Path) -> str:
        """Return a name of a file that does not depend on where the package is installed."""
        if path not in self._labels:
            root = self._root_of(path)
            inside = None if root is None else path.relative_to(self._roots[root] or "").as_posix()
            self._labels[path] = path.name if inside is None else f"{root}/{inside}"
        return self._labels[path]

    def data(self, folder: Path) -> set[tuple[str, str]]:
        """Return the label and SHA-256 of the data files and native sources in a folder.

        The built-in recipes do not count, since stages receive their values as parameters.
        """
        if folder not in self._data:
            is_ours = self._root_of(folder) is not None and folder != self._root("recipes")
            files = [path for path in folder.iterdir() if path.suffix in DATA_SUFFIXES] if is_ours else []
            self._data[folder] = {(self.label(path), sha256_file(path)) for path in files}
        return self._data[folder]

    def _root(self, name: str) -> Path | None:
        if name not in self._roots:
            self._roots[name] = _installed_root(name)
        return self._roots[name]

    def _root_of(self, path: Path) -> str | None:
        return next((name for name, root in self._roots.items() if root and path.is_relative_to(root)), None)


@cache
def _installed_root(name: str) -> Path | None:
    """Return the folder of `prosocial.NAME`."""
    spec = find_spec(f"{PACKAGE}.{name}") if name else None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
