"""Checks that the wheel adds one name to site-packages and contains every file of the root folders."""

import sys
import zipfile
from pathlib import Path

FOLDERS = ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli")
SUFFIXES = (".py", ".pyi", ".yaml", ".j2", ".json", ".typed", ".safetensors")
NATIVE = "prosocial/editing/kernels/native."  # built only if there is a C compiler


def main(wheel: Path) -> int:
    """Compare the names in a wheel with the files of the checkout and print the differences."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    built = {name for name in names if name.startswith(NATIVE)}
    actual = names - information - built
    places = {Path(folder): f"prosocial/{folder}" for folder in FOLDERS} | {Path("package"): "prosocial"}
    expected = {
        f"{place}/{path.relative_to(folder).as_posix()}"
        for folder, place in places.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in SUFFIXES
    }
    for name in sorted(expected - actual):
        print(f"missing from the wheel: {name}")
    for name in sorted(actual - expected):
        print(f"should not be in the wheel: {name}")
    loops = f"{'with' if built else 'WITHOUT'} loops in C"
    print(f"{wheel.name}: {len(actual)} files under prosocial/, {loops}, {wheel.stat().st_size / 1000:.0f} kB")
    return int(actual != expected)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("one wheel should be given: python .ci/check_wheel.py build/dist/prosocial-*.whl")
    sys.exit(main(Path(sys.argv[1])))
