"""A process that has imported everything and forks one command at a time, so that kills cost no imports."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = """
import json, os, sys
import onnx, onnxruntime, onnxscript, optuna, peft, safetensors.torch, torch, transformers, trl  # noqa
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Qwen3ForCausalLM  # noqa
from prosocial.cli.main import main
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(task["folder"])
        log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            code = main(task["words"])
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class ForkServer:
    """Runs commands in a folder, one at a time, each in a process of its own that can be killed.

    Args:
        folder: working folder of the commands.
        log: file for what the last command printed.
        environment: variables of the commands, in addition to those of this process.
    """

    def __init__(self, folder: Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.log = folder, log
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        settings = {"OMP_NUM_THREADS": "1", **os.environ, **(environment or {})}
        words = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        self._process = subprocess.Popen(words, text=True, env=settings, **pipes)  # type: ignore[call-overload]
        assert self._line() == "ready"

    def start(self, words: Sequence[str]) -> int:
        """Start a command and return its process id."""
        task = {"folder": str(self.folder), "log": str(self.log), "words": list(words)}
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Return the exit code of the started command; a negative signal number if it was killed."""
        return int(self._line())

    def run(self, words: Sequence[str]) -> int:
        """Run a command and return its exit code."""
        self.start(words)
        return self.wait()

    def kill(self, process: int) -> None:
        """Kill a started command, whose end `wait` still has to read."""
        os.kill(process, signal.SIGKILL)

    def _line(self) -> str:
        return str(self._process.stdout.readline()).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
