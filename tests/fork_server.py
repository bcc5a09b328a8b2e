"""A process that has imported everything and forks commands, so that a kill costs no imports.

A command can be killed from outside at any time. It can also kill itself right before its n-th write, because random
times hardly ever hit the short moments between two writes.
"""

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
import importlib, json, os, pkgutil, sys
import onnx, onnxruntime, onnxscript, optuna, peft, safetensors.torch, torch, transformers  # noqa
torch.set_num_threads(1)
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Qwen3ForCausalLM  # noqa
from write_watch import WriteWatch
from prosocial.cli.main import main
for root in ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli"):
    package = importlib.import_module(f"prosocial.{root}")
    for module in pkgutil.walk_packages(package.__path__, f"prosocial.{root}."):
        if "inspect_ai" not in module.name:
            importlib.import_module(module.name)
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if "wait" in task:
        print(os.waitstatus_to_exitcode(os.waitpid(task["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        os.chdir(task["folder"])
        log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        watch = WriteWatch(task["folder"], task["dies_at"])
        try:
            code = main(task["words"])
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(log, b"%d writes" % watch.stop())
        os._exit(code)
    print(child, flush=True)
"""


class ForkServer:
    """Runs commands in a folder, each in a process of its own that can be killed; several may run at once.

    Args:
        folder: working folder of the commands.
        logs: folder for what the commands print, outside of the working folder.
        environment: variables of the commands, in addition to those of this process.
    """

    def __init__(self, folder: Path, logs: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self._logs, self._started = folder, logs, 0
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        settings = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths, **(environment or {})}
        words = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        self._process = subprocess.Popen(words, text=True, env=settings, **pipes)  # type: ignore[call-overload]
        assert self._line() == "ready"

    def start(self, words: Sequence[str], *, dies_at: int | None = None) -> "Started":
        """Start a command, which kills itself right before its write number `dies_at`."""
        self._started += 1
        log = self._logs / f"{self._started}.txt"
        task = {"folder": str(self.folder), "log": str(log), "words": list(words), "dies_at": dies_at}
        return Started(self, int(self.ask(task)), log)

    def run(self, words: Sequence[str]) -> "Started":
        """Run a command to its end."""
        started = self.start(words)
        started.wait()
        return started

    def ask(self, task: Mapping[str, object]) -> str:
        """Send a line to the process and return the line that it answers."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._line()

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


class Started:
    """A command that was started.

    Attributes:
        code: exit code after `wait`; a negative signal number if the command was killed.
    """

    def __init__(self, server: ForkServer, process: int, log: Path) -> None:
        self._server, self._process, self._log, self.code = server, process, log, -1

    def kill(self) -> None:
        """Kill the command, unless it has ended; `wait` has to be called all the same."""
        os.kill(self._process, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        self.code = int(self._server.ask({"wait": self._process}))
        return self.code

    @property
    def printed(self) -> str:
        """What the command printed on standard output and standard error."""
        return self._log.read_text().rpartition("\n")[0]

    @property
    def n_writes(self) -> int:
        """The number of writes of a command that ended by itself."""
        return int(self._log.read_text().rpartition("\n")[2].split()[0])
