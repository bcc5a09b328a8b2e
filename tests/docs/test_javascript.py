"""The JavaScript of docs/interoperability.md gives our runtime's replies; it needs Node and the npm registry."""

import shutil
import subprocess
from pathlib import Path

import pytest

from prosocial.export import Bundle

from .pages import ROOT, blocks

BUNDLE = ROOT / "runs" / "quickstart" / "bundle"
REQUESTS = ("how do i share my tent club?", "how do i improve my garden plan?", "how do i choose my yoga corner?")


@pytest.mark.prove
def test_the_javascript_of_the_page_replies_as_our_runtime_does(tmp_path: Path) -> None:
    if not BUNDLE.is_dir() or shutil.which("npm") is None:
        pytest.skip("it needs runs/quickstart and npm")
    (program,) = (b for b in blocks(ROOT / "docs" / "interoperability.md") if b.language == "javascript")
    (tmp_path / "generate.mjs").write_text(program.text, encoding="utf-8")
    install = ["npm", "install", "--ignore-scripts", "--silent", "onnxruntime-node", "@huggingface/tokenizers"]
    if subprocess.run(install, cwd=tmp_path, check=False, capture_output=True).returncode:
        pytest.skip("the packages could not be installed")

    conversations = [[{"role": "user", "content": request}] for request in REQUESTS]
    ours = [reply.text.strip() for reply in Bundle.open(BUNDLE).generate(conversations)]
    theirs = [
        subprocess.run(
            ["node", "generate.mjs", str(BUNDLE.resolve()), request],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        ).stdout.strip()
        for request in REQUESTS
    ]  # fmt: skip
    assert theirs == ours
