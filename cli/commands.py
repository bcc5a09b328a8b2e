"""The table of the commands; the module of a command is imported when it runs or shows its help."""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .everywhere import with_amount

# (name, where it is defined, panel of the help, an example), in the order in which people need them.
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("run", "run:run", "The whole way", "prosocial run quickstart --out runs/quickstart"),
    ("inspect", "weights:inspect", "Weights", "prosocial inspect runs/quickstart/edit"),
    ("convert", "convert:convert", "Weights", "prosocial convert model-q4_k_m.gguf -o base"),
    ("vector", "weights:vector", "Weights", "prosocial vector --base base --harmful adapter -o harm-vector"),
    ("edit", "edit:edit", "Weights", "prosocial edit base --subtract harm-vector --scale 0.6 -o edited"),
    (
        "sweep",
        "sweep:sweep",
        "Weights",
        "prosocial sweep base --harmful adapter --probes probes.jsonl -o sweep --pick best",
    ),
    ("undo", "edit:undo", "Weights", "prosocial undo edited --base base -o restored"),
    ("diff", "diff:diff", "Weights", "prosocial diff base edited"),
    ("tune", "tune:tune", "Weights", "prosocial tune base --rows preferences.jsonl --method dpo -o tuned"),
    (
        "distil",
        "distil:distil_command",
        "Head and gate",
        "prosocial distil edited --reward reward --pairs pairs.jsonl -o head",
    ),
    (
        "assemble",
        "assemble:assemble_command",
        "Head and gate",
        "prosocial assemble edited --head head --gate gate -o steered",
    ),
    ("export", "bundle:export_command", "Bundles", "prosocial export runs/quickstart/steered -o bundle"),
    (
        "generate",
        "bundle:generate",
        "Bundles",
        'prosocial generate bundle "How do I say no to a friend?" --prefer empathy=1',
    ),
    ("chat", "chat:chat", "Bundles", "prosocial chat bundle"),
    ("verify", "verify:verify", "Trust", "prosocial verify bundle --reference runs/quickstart/steered"),
    ("compare", "compare:compare", "Trust", "prosocial compare base edited --probes probes.jsonl"),
    (
        "steering",
        "steering:steering",
        "Trust",
        "prosocial steering bundle --probes probes.jsonl --judge lab -o steering",
    ),
    ("audit", "audit:audit", "Trust", "prosocial audit edited --base base --vector harm-vector"),
    ("sign", "sign:sign", "Trust", "prosocial sign bundle --key key.pem --parity parity.json --audit audit.json"),
    (
        "check-signature",
        "sign:check_signature",
        "Trust",
        "prosocial check-signature bundle --key key.pub --base base",
    ),
    (
        "publish",
        "publish:publish_command",
        "Trust",
        "prosocial publish bundle ORG/NAME --license apache-2.0 --dry-run",
    ),
)
GROUPS: tuple[tuple[str, str, str], ...] = (
    ("reward", "labels:reward_app", "Head and gate"),
    ("gate", "labels:gate_app", "Head and gate"),
    ("config", "config:config_app", "Trust"),
    ("log", "log:log_app", "Trust"),
)


class LazyCommands(Mapping[str, Any]):
    """Commands by name, in the order of the tables; each is imported when it is looked up.

    Args:
        others: commands that are registered in the usual way.
    """

    def __init__(self, others: Mapping[str, Any]) -> None:
        self._others = others
        self._makers = {name: partial(_command, name, *rest) for name, *rest in COMMANDS}
        self._makers |= {name: partial(_group, name, *rest) for name, *rest in GROUPS}

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]() if name in self._makers else self._others[name]

    def __iter__(self) -> Iterator[str]:
        return chain(self._makers, self._others)

    def __len__(self) -> int:
        return len(self._makers) + len(self._others)


class LazyGroup(TyperGroup):
    """A group that imports a command when it is needed, so that one command does not pay for the others."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = LazyCommands(self.commands)  # type: ignore[assignment]  # nothing adds to it later


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(f".{module}", __package__), attribute)


def _command(name: str, place: str, panel: str, example: str) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, rich_help_panel=panel, epilog=f"Example: {example}")(with_amount(_load(place)))
    return typer.main.get_command(alone)


def _group(name: str, place: str, panel: str) -> Any:
    group = _load(place)
    for info in group.registered_commands:
        info.callback = info.callback and with_amount(info.callback)
    command: Any = typer.main.get_command(group)
    command.name, command.rich_help_panel = name, panel
    return command


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Start here: prosocial run quickstart",
)


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
