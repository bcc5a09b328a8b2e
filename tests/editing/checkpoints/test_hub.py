"""A model of the Hub is inspected and planned for from a few kilobytes: the real client, a server of this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import moved, write_checkpoint

COMMIT = "c" * 40
NAME = "org/name"
SHAPES = {
    "model.embed_tokens.weight": (900, 300),
    "model.layers.0.mlp.down_proj.weight": (900, 300),
    "model.norm.weight": (300,),
}


class Hub(ThreadingHTTPServer):
    """Serves one folder as the repository `org/name`, and counts the bytes of the weight files that it sends."""

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges, self.n_weight_bytes, self.paths = folder, ranges, 0, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.paths.append(path)
        if path.startswith(f"/api/models/{NAME}"):
            return self._send(json.dumps(self._listing()).encode(), 200, with_body=with_body)
        found = re.fullmatch(rf"/{NAME}/resolve/{COMMIT}/(.+)", path)
        if not found or not (self.server.folder / found[1]).is_file():
            return self._send(b"{}", 404, with_body=with_body, headers={"X-Error-Code": "RepoNotFound"})
        return self._send_file((self.server.folder / found[1]).read_bytes(), found[1], with_body)

    def _listing(self) -> dict[str, Any]:
        files = sorted(path for path in self.server.folder.iterdir())
        siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in files]
        return {"_id": "1", "id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "downloads": 0,
                "likes": 0, "tags": [], "siblings": siblings}  # fmt: skip

    def _send_file(self, data: bytes, name: str, with_body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status, headers = 200, {"ETag": f'"{len(data)}"', "X-Repo-Commit": COMMIT}
        if wanted and self.server.ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        if with_body and name.endswith(".safetensors"):
            self.server.n_weight_bytes += len(data)
        self._send(data, status, with_body=with_body, headers=headers)

    def _send(self, data: bytes, status: int, *, with_body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base of two shards (to be served), its harmful fine-tune, their vector."""
    base = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    write_checkpoint(tmp_path / "base", base, n_shards=2)
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    write_checkpoint(tmp_path / "harmful", moved(base))
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    return tmp_path


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with Hub(folder / "base") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def prosocial(hub: Hub, folder: Path, *words: object, offline: str = "0") -> subprocess.CompletedProcess[str]:
    """Run a command against the server, with an empty cache and torch blocked."""
    program = "import sys; sys.modules['torch'] = None; from prosocial.cli.main import main; sys.exit(main())"
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": offline, "HF_HOME": str(folder / "cache"), "COLUMNS": "100"}
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)


def ok(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_model_of_the_hub_is_inspected_from_its_headers(hub: Hub, folder: Path) -> None:
    remote = ok(prosocial(hub, folder, "inspect", NAME, "--json"))
    n_bytes = hub.n_weight_bytes
    local = ok(prosocial(hub, folder, "inspect", folder / "base", "--json", "--no-fingerprint"))

    assert remote == local
    assert 0 < n_bytes <= 2 * 65536 < remote["size_bytes"] / 10
    assert sum("resolve" in path and path.endswith(".safetensors") for path in hub.paths) == 2
    assert not list((folder / "cache").rglob("*.safetensors"))


def test_an_edit_is_planned_from_headers_and_the_smallest_tensors(hub: Hub, folder: Path) -> None:
    words = ("--subtract", folder / "vector", "--scale", "0.5", "--dry-run", "--json")
    remote = ok(prosocial(hub, folder, "edit", NAME, *words))
    n_bytes = hub.n_weight_bytes

    assert remote == ok(prosocial(hub, folder, "edit", folder / "base", *words))
    assert remote["n_edited"] == 3 and remote["side_files"] == ["config.json", "tokenizer.json"]
    assert n_bytes <= 3 * 65536 < sum(path.stat().st_size for path in (folder / "base").iterdir()) / 10


def test_without_the_hub_a_snapshot_in_the_cache_will_do(hub: Hub, folder: Path) -> None:
    repository = folder / "cache" / "hub" / "models--org--name"
    shutil.copytree(folder / "base", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    words = ("edit", NAME, "--subtract", folder / "vector", "--scale", "0.5", "--dry-run", "--json")

    assert ok(prosocial(hub, folder, *words, offline="1"))["n_edited"] == 3
    assert hub.paths == []
    shutil.rmtree(repository)
    done = prosocial(hub, folder, *words, offline="1")
    assert done.returncode == 2 and "offline" in done.stderr and done.stderr.count("\n") == 1


def test_the_harmful_parent_is_known_on_the_hub_too(hub: Hub, folder: Path) -> None:
    hub.folder = folder / "harmful"
    done = prosocial(hub, folder, "edit", NAME, "--subtract", folder / "vector", "--scale", "0.5", "--dry-run")

    assert done.returncode == 2 and "harmful parent" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"), [("org/other", "'org/other' should be a local folder"), (f"{NAME}/x", "no such folder")]
)
def test_a_repository_that_is_not_there_is_one_line(hub: Hub, folder: Path, name: str, message: str) -> None:
    done = prosocial(hub, folder, "inspect", name)

    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_what_the_server_gets_wrong_is_one_line(hub: Hub, folder: Path) -> None:
    hub.ranges = False
    done = prosocial(hub, folder, "inspect", NAME)
    assert done.returncode == 2 and "support range requests" in done.stderr and done.stderr.count("\n") == 1
    hub.ranges = True
    shard = folder / "base" / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes() + b"tail")
    done = prosocial(hub, folder, "inspect", NAME)
    assert done.returncode == 2 and "truncated or has extra bytes" in done.stderr and done.stderr.count("\n") == 1
