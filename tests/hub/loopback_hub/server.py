"""The server: one thread per connection, answers from a table of routes, faults where they are asked for."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from .exchange import Answer, Request, Route
from .faults import Fault
from .repository import Repository
from .routes import UNKNOWN, find_route

TOKEN = "loopback-token"
NAMESPACES = ("org", "me")


class LoopbackHub:
    """A Hub on a free port of this machine; a context manager that serves while it is open.

    Attributes:
        token: the one that it knows. namespaces: where that token may write.
        part_bytes: larger files are uploaded in parts of this size. max_bytes: larger files are refused (413).
        repositories: by name. blobs: uploaded large files by SHA-256, committed or not. parts: of uploads under way.
        faults: what goes wrong. log: names of the requests, in their order. unknown: requests that it knows nothing of.

    Example:
        >>> with LoopbackHub() as hub:
        ...     hub.url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(self, *, part_bytes: int = 1 << 24, max_bytes: int = 1 << 40) -> None:
        self.token, self.namespaces = TOKEN, list(NAMESPACES)
        self.part_bytes, self.max_bytes = part_bytes, max_bytes
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its address: what `HF_ENDPOINT` and `endpoint=` take."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the bytes by path of a repository; nothing where there is no such repository."""
        found = self.repositories.get(name)
        return {} if found is None else found.files(revision)

    def note(self, step: str, asked: str) -> None:
        """Keep account of a request."""
        with self.lock:
            if step == UNKNOWN:
                self.unknown.append(asked)
            else:
                self.log.append(step)

    def fault(self, step: str) -> Fault | None:
        """Return what goes wrong at this request."""
        with self.lock:
            return next((fault for fault in self.faults if fault.strikes(step)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, body = self.server.hub, self._body()
        step, route = find_route(self.command, self.path.partition("?")[0])
        fault = hub.fault(step)
        kind = fault.kind if fault else ""
        hub.note(step, f"{self.command} {self.path}")
        if fault and kind == "refuse":
            return self._send(Answer({"error": "asked for"}, fault.status, fault.headers))
        if kind == "drop":
            return self._hang_up()
        request = Request(hub, {key.lower(): text for key, text in self.headers.items()}, body, kind == "corrupt")
        answer = self._run(route, request)
        if kind == "lose":
            return self._hang_up()
        return self._send(answer, cut=kind == "cut")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - http.server names them

    def _run(self, route: Route, request: Request) -> Answer:
        with self.server.hub.lock:  # one request at a time, so that a commit is whole or not there
            return route(request)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, answer: Answer, *, cut: bool = False) -> None:
        content = answer.content
        self.send_response(answer.status)
        for key, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
