"""Runs systems in separate processes that answer one request at a time."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass
class Worker:
    """A process that reads requests as JSON lines and answers each with one, which includes `peak_bytes` of memory."""

    name: str
    process: "subprocess.Popen[str]"
    peak_bytes: int = 0

    @classmethod
    def start(cls, name: str, command: Sequence[str], threads: int) -> Self:
        """Start the process and wait until its models are loaded."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        worker = cls(name, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
        worker._answer()
        return worker

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one request and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak_bytes = max(self.peak_bytes, answer["peak_bytes"])
        return answer

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"{self.name} ended with code {self.process.wait()}")
