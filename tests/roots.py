"""Where the package is in this repository."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOTS = (
    "core",
    "editing",
    "steering",
    "training",
    "export",
    "evaluation",
    "verify",
    "recipes",
    "cli",
)  # a folder may import itself and what stands before it
TOP = "package"  # `prosocial` itself: what lies beside the root folders under the import name
