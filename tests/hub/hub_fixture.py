"""The fixture `hub`: a Hub on this machine that the Hub's own client speaks to.

Inside a test that takes `hub` the client knows no other Hub, keeps its cache in the test's temporary folder, and is
logged in.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .loopback_hub.faults import Fault
from .loopback_hub.repository import Repository
from .loopback_hub.server import LoopbackHub

__all__ = ["Fault", "LoopbackHub", "Repository", "hub", "point_client_at"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub without repositories, for one test."""
    with LoopbackHub() as server:
        point_client_at(server, tmp_path / "hub-home", monkeypatch)
        yield server


def point_client_at(server: LoopbackHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client in this process, and in those that it starts, know only this Hub.

    The client reads its environment once, when it is imported: so both are set.
    """
    from huggingface_hub import close_session, constants

    variables = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_TOKEN": server.token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # files go by the large-file protocol, which can be served here
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(home / "harnesses.json"), raising=False)
    close_session()  # connections to the Hub of the test before
