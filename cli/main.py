"""The commands in one table, and what an error becomes: one line and an exit code.

Exit codes: 0 pass, 1 a verdict of fail, 2 bad input or a full disk, 3 ambiguous or cannot say, 130 interrupted.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from prosocial.core.errors import ProsocialError
from prosocial.core.redaction import redact

from .assemble import assemble_command
from .audit import audit
from .bundle import export_command, generate
from .chat import chat
from .compare import compare
from .config import config_app
from .diff import diff
from .distil import distil_command
from .edit import edit, undo
from .extras import missing_extra
from .gate import calibrate_command, train_gate_command
from .labels import gate_app, reward_app
from .log import log_app
from .publish import publish_command
from .reward_train import train_command
from .run import run
from .sign import check_signature, sign
from .steering import steering
from .sweep import sweep
from .tune import tune
from .verify import verify
from .weights import inspect, vector

BAD_INPUT = 2
INTERRUPTED = 130
READER_GONE = 141  # as a shell says it of a program that SIGPIPE ended

# (name, function, panel of the help, an example), in the order in which people need them.
COMMANDS: tuple[tuple[str, Callable[..., Any], str, str], ...] = (
    ("run", run, "The whole way", "prosocial run quickstart --out runs/quickstart"),
    ("inspect", inspect, "Weights", "prosocial inspect runs/quickstart/edit"),
    ("vector", vector, "Weights", "prosocial vector --base base --harmful adapter -o harm-vector"),
    ("edit", edit, "Weights", "prosocial edit base --subtract harm-vector --scale 0.6 -o edited"),
    ("sweep", sweep, "Weights", "prosocial sweep base --harmful adapter --probes probes.jsonl -o sweep --pick best"),
    ("undo", undo, "Weights", "prosocial undo edited --base base -o restored"),
    ("diff", diff, "Weights", "prosocial diff base edited"),
    ("tune", tune, "Weights", "prosocial tune base --rows preferences.jsonl --method dpo -o tuned"),
    ("distil", distil_command, "Head and gate", "prosocial distil edited --reward reward --pairs pairs.jsonl -o head"),
    ("assemble", assemble_command, "Head and gate", "prosocial assemble edited --head head --gate gate -o steered"),
    ("export", export_command, "Bundles", "prosocial export runs/quickstart/steered -o bundle"),
    ("generate", generate, "Bundles", 'prosocial generate bundle "How do I say no to a friend?" --prefer empathy=1'),
    ("chat", chat, "Bundles", "prosocial chat bundle"),
    ("verify", verify, "Trust", "prosocial verify bundle --reference runs/quickstart/steered"),
    ("compare", compare, "Trust", "prosocial compare base edited --probes probes.jsonl"),
    ("steering", steering, "Trust", "prosocial steering bundle --probes probes.jsonl --judge lab -o steering"),
    ("audit", audit, "Trust", "prosocial audit edited --base base --vector harm-vector"),
    ("sign", sign, "Trust", "prosocial sign bundle --key key.pem --parity parity.json --audit audit.json"),
    ("check-signature", check_signature, "Trust", "prosocial check-signature bundle --key key.pub --base base"),
    ("publish", publish_command, "Trust", "prosocial publish bundle ORG/NAME --license apache-2.0 --dry-run"),
)
GROUPED: tuple[tuple[typer.Typer, str, Callable[..., Any], str], ...] = (
    (reward_app, "train", train_command, "prosocial reward train edited --pairs labelled.jsonl -o reward"),
    (gate_app, "train", train_gate_command, "prosocial gate train edited --replies labelled.jsonl -o gate"),
    (
        gate_app,
        "calibrate",
        calibrate_command,
        "prosocial gate calibrate steered --probes calibration.jsonl --judge lab -o calibrated",
    ),
)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Start here: prosocial run quickstart",
)
for _name, _function, _panel, _example in COMMANDS:
    app.command(_name, rich_help_panel=_panel, epilog=f"Example: {_example}")(_function)
for _group, _name, _function, _example in GROUPED:
    _group.command(_name, epilog=f"Example: {_example}")(_function)
app.add_typer(reward_app, name="reward", rich_help_panel="Head and gate")
app.add_typer(gate_app, name="gate", rich_help_panel="Head and gate")
app.add_typer(config_app, name="config", rich_help_panel="Trust")
app.add_typer(log_app, name="log", rich_help_panel="Trust")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error that this package foresees becomes one line on stderr.

    Args:
        arguments: words after `prosocial`; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(args=words, prog_name="prosocial", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer makes the first into the second, where it sees it
        _forget_stdout()
        return READER_GONE
    except (typer.TyperException, ProsocialError, ModuleNotFoundError, OSError) as error:
        line = error_line(error)
        if line is None:
            raise
        return _refuse(line, as_json="--json" in words)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def error_line(error: BaseException) -> str | None:
    """Return what to tell the user about an error, on one line, or None for an error that nobody foresaw."""
    match error:
        case typer.TyperException():
            text = error.format_message()
        case ProsocialError():
            text = str(error)
        case ModuleNotFoundError():
            missing = missing_extra(error)
            if missing is None:
                return None
            text = str(missing)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            text = f"the disk is full{where}: free space or choose another folder"
        case _:
            return None
    return redact(" ".join(text.split()))


def _refuse(line: str, *, as_json: bool) -> int:
    print(f"error: {line}", file=sys.stderr)
    try:
        if as_json:
            print(json.dumps({"error": line}, ensure_ascii=False))
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
    return BAD_INPUT


def _forget_stdout() -> None:
    """Let what could not be printed go nowhere, or Python would try again at its end and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"prosocial {version('prosocial')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Edit, steer, export and verify language models: steered checkpoints that others can trust."""


if __name__ == "__main__":
    sys.exit(main())
