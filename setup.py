"""Maps the root folders to one import name; the package list is computed, so that no folder can be forgotten."""

from pathlib import Path

from setuptools import setup

ROOTS = ("editing", "export", "verify", "recipes", "cli")
folders = sorted(init.parent for root in ROOTS for init in Path(root).rglob("__init__.py"))
setup(
    packages=["prosocial." + ".".join(folder.parts) for folder in folders],
    package_dir={f"prosocial.{root}": root for root in ROOTS},
)
