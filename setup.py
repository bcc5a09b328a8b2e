"""Maps the root folders to one import name; the package list is computed, so that no folder can be forgotten."""

import sys
from pathlib import Path

from setuptools import Extension, setup

ROOTS = ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli")
folders = sorted(init.parent for root in ROOTS for init in Path(root).rglob("__init__.py"))
native = Extension(
    "prosocial.editing.kernels.native",
    ["editing/kernels/native.c"],
    depends=["editing/kernels/lanes.h", "editing/kernels/edits.h", "editing/kernels/vectors.h"],
    extra_compile_args=["-O3", "-ffp-contract=off", "-Wno-psabi"],  # no fused multiply-add: numpy's bits
    py_limited_api=True,
    optional=True,  # without a compiler numpy does the same, more slowly
)
setup(
    packages=["prosocial", *("prosocial." + ".".join(folder.parts) for folder in folders)],
    package_dir={"prosocial": "package"} | {f"prosocial.{root}": root for root in ROOTS},
    ext_modules=[] if sys.platform == "win32" else [native],  # it is written in the vector types of gcc and clang
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
