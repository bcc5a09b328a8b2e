"""A bundle answers on Windows and macOS as it does on Linux, as far as rules laid over it can tell."""

import subprocess
import sys
from pathlib import Path

import pytest

from ...other_systems import prelude

PROGRAM = """
import sys
from prosocial.export import Bundle
bundle = Bundle.open(sys.argv[1], threads=1)
conversations = [[{"role": "user", "content": words}] for words in ("word7 word1", "word3", "word21 word4 word5")]
for reply in bundle.generate(conversations, temperature=0.8, seed=3):
    print(reply.finish, reply.token_ids)
"""


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_bundle_opens_and_answers_as_here(system: str, llama_bundle: Path) -> None:
    expected, found = (
        subprocess.run([sys.executable, "-c", program, str(llama_bundle)], capture_output=True, text=True, check=False)
        for program in (PROGRAM, prelude(system) + PROGRAM)
    )
    assert (expected.returncode, found.returncode) == (0, 0), found.stderr[-2000:]
    assert found.stdout == expected.stdout and found.stdout.count("\n") == 3
