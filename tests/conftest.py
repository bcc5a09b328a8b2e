"""What every test shares: one thread, no network, fixed seeds, property tests that draw the same cases each time."""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .hub.hub_fixture import hub as hub
from .worlds import bundle_folder as bundle_folder
from .worlds import checkpoint_folder as checkpoint_folder
from .worlds import llama_bundle as llama_bundle
from .worlds import llama_folder as llama_folder
from .worlds import pico as pico
from .worlds import plain_bundle as plain_bundle
from .worlds import portable_bundle as portable_bundle
from .worlds import probes_file as probes_file
from .worlds import steered_folder as steered_folder

# Before anything imports torch, tokenizers or the Hub client: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

# A shell that starts the tests in the background lets them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]

# The environment of `make prove` without the extras has no hypothesis, and no test there needs it.
if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("project", deadline=None, derandomize=True, database=None)
    settings.load_profile("project")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch where a test file has imported it; nothing here imports it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT
