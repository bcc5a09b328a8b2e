"""`prosocial chat`: a conversation in a terminal, or, from a pipe, one reply per line of input."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Message
from prosocial.core.terminal import printable

from .output import note, result_console, say
from .placement_options import Provider
from .reply_options import (
    DRAWING,
    OPENING,
    BundlePath,
    Prefer,
    Threads,
    enforced_by,
    exact,
    gate_line,
    open_bundle,
    reply_options,
    say_signature,
    steering_of,
)
from .safety_options import LOGGING, RequestLog, SafetyConfigName, Trust
from .shared_options import with_options

if TYPE_CHECKING:
    from prosocial.export.runtime.bundle import Bundle
    from prosocial.steering.decoding.controls import Steering
    from prosocial.steering.decoding.draft import GateEvent
    from prosocial.steering.decoding.reply import Reply
    from prosocial.steering.decoding.streaming import ReplyStream

BAR_WIDTH = 24
HELP = "/prefer empathy=0.6,helpfulness=0.4   /config NAME   /reset   /quit   (without a name: the bundle's default)"


@with_options("drawing", DRAWING)
@with_options("opening", OPENING)
@with_options("logging", LOGGING)
def chat(
    bundle: BundlePath,
    prefer: Prefer = None,
    safety_config: SafetyConfigName = "",
    trust: Trust = None,
    *,
    drawing: dict[str, Any],
    provider: Provider = "cpu",
    threads: Threads = None,
    opening: dict[str, Any],
    logging: dict[str, Any],
) -> None:
    """Chat with a bundle; in a terminal, /help lists the commands; from a pipe, every line is a message."""
    opened = open_bundle(bundle, provider, threads, prefix_cache=True, **opening)
    requests = RequestLog.open(**logging)
    options = reply_options(opened, drawing)
    talk = Conversation(opened, ",".join(prefer or ()), safety_config, options, trust=trust or (), log=requests)
    say_signature(opened)
    if sys.stdin.isatty() and sys.stdout.isatty():
        _talk_in_terminal(talk, result_console(highlight=False))
    else:
        _talk_through_pipe(talk)


class Conversation:
    """A conversation and the steering of its next reply.

    Args:
        bundle: bundle that replies.
        preference: weights by attribute, as in `--prefer`.
        safety_config: name or path of a safety config, as in `--safety-config`.
        options: decoding options of every reply.
        trust: trust files or public keys whose signed configs are followed.
        log: audit log of the requests.

    Raises:
        InputError: the preference or the safety config is unknown to the bundle.
        RefusedConfig: a signed safety config is not trusted.
    """

    def __init__(
        self,
        bundle: "Bundle",
        preference: str,
        safety_config: str,
        options: Mapping[str, Any],
        *,
        trust: Sequence[Path] = (),
        log: RequestLog | None = None,
    ) -> None:
        self.bundle, self._options = bundle, options
        self._trust, self._log = trust, log or RequestLog()
        self._preference, self._safety_config = preference, safety_config
        self.steering = self._steering_of(preference, safety_config)
        self.messages: list[Message] = []

    def prefer(self, preference: str) -> None:
        """Change the preference."""
        self.steering = self._steering_of(preference, self._safety_config)
        self._preference = preference

    def use_config(self, name: str) -> None:
        """Change the safety config; the earlier turns are kept."""
        self.steering = self._steering_of(self._preference, name)
        self._safety_config = name

    def reset(self) -> None:
        """Delete the earlier turns."""
        self.messages.clear()

    def command(self, line: str) -> bool:
        """Run a slash command; return False for `/quit`.

        Raises:
            UnknownNameError: the command does not exist.
            InputError: its argument is unknown to the bundle.
        """
        word, _, argument = line.partition(" ")
        known: dict[str, Callable[[], None]] = {
            "/prefer": lambda: self.prefer(argument.strip()),
            "/config": lambda: self.use_config(argument.strip()),
            "/reset": self.reset,
            "/help": lambda: None,
            "/quit": lambda: None,
        }
        if word not in known:
            raise UnknownNameError("command", word, known)
        known[word]()
        return word != "/quit"

    def say(self, text: str) -> "ReplyStream":
        """Return the stream of the reply to a message; call `heard` afterwards to add both to the conversation."""
        messages: list[Message] = [*self.messages, {"role": "user", "content": text}]
        key = f"turn {len(messages)}"
        return self.bundle.stream(messages, steering=self.steering, row_key=key, **self._options)

    def started(self, text: str) -> None:
        """Log that the reply to a message is about to be shown while it is generated."""
        self._log.started(self.bundle, self.steering, [*self.messages, {"role": "user", "content": text}])

    def stopped(self, text: str, shown: str) -> None:
        """Log that the reply to a message was stopped after the text `shown`."""
        self._log.stopped([*self.messages, {"role": "user", "content": text}], shown)

    def heard(self, text: str, reply: "Reply") -> None:
        """Log a message and its reply, and add them to the conversation."""
        messages: list[Message] = [*self.messages, {"role": "user", "content": text}]
        self._log.request(self.bundle, self.steering, messages, reply)
        self.messages = [*messages, {"role": "assistant", "content": reply.text}]

    def _steering_of(self, preference: str, safety_config: str) -> "Steering":
        return steering_of(self.bundle, [preference], safety_config, self._trust, self._log)


def _talk_through_pipe(talk: Conversation) -> None:
    """Read one message per line until an empty one; piped text is never a command, even if it starts with a slash."""
    while text := sys.stdin.readline().strip():
        stream = talk.say(text)
        for _ in stream:
            pass
        assert stream.reply is not None
        talk.heard(text, stream.reply)
        say(stream.reply.text.strip())
        note(gate_line(talk.bundle, talk.steering, stream.reply))


def _talk_in_terminal(talk: Conversation, console: Console) -> None:
    console.print(_panel(talk))
    while (line := _ask(console)) is not None:
        try:
            if line.startswith("/"):
                if not talk.command(line):
                    return
                console.print(_panel(talk))
            elif line:
                _show_reply(talk, line, console)
        except InputError as error:
            console.print(f"error: {' '.join(str(error).split())}", style="red", markup=False)


def _ask(console: Console) -> str | None:
    try:
        return console.input("[bold]> [/]").strip()
    except EOFError:
        return None


def _show_reply(talk: Conversation, text: str, console: Console) -> None:
    """Stream a reply, then print what the gate did; Ctrl-C stops the reply and discards the turn."""
    stream, shown = talk.say(text), ""
    talk.started(text)
    try:
        for piece in stream:
            shown += piece
            console.print(printable(piece), end="", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        stream.close()
        talk.stopped(text, shown)
        console.print("\n(stopped, this turn is discarded)", style="dim")
        return
    console.print()
    assert stream.reply is not None
    talk.heard(text, stream.reply)
    for event in stream.events:
        console.print(event_line(event), style="yellow", markup=False)
    if stream.withdrawn:
        console.print("the text before the last line is withdrawn", style="yellow")
    console.print(gate_line(talk.bundle, talk.steering, stream.reply), style="dim", markup=False)


def event_line(event: "GateEvent") -> str:
    """Return one line that describes an intervention of the gate.

    Examples:
        >>> from prosocial.steering import GateEvent
        >>> event_line(GateEvent(step=9, action="rollback", back_to=4, banned=17, reason="phrase"))
        'gate: a forbidden phrase came up after 9 tokens: back to 4, drawn again'
    """
    what = "a forbidden phrase came up" if event.reason == "phrase" else "nothing was safe"
    then = f"back to {event.back_to}, drawn again" if event.action == "rollback" else "the fallback is the reply"
    return f"gate: {what} after {event.step} tokens: {then}"


def _panel(talk: Conversation) -> Panel:
    """Return a panel with the preference, safety config and threshold of the next reply."""
    table, enforced = Table.grid(padding=(0, 2)), enforced_by(talk.bundle, talk.steering)
    title = escape(talk.bundle.folder.name)
    if enforced is None or talk.bundle.config is None:
        return Panel("plain bundle: no gate, no preference", title=title, subtitle="/reset   /quit", expand=False)
    for name in talk.bundle.config.attributes:
        weight = enforced.preference.get(name, 0.0)
        table.add_row(name, f"{'━' * round(BAR_WIDTH * weight):{BAR_WIDTH}} {weight:.2f}")
    others = ", ".join(sorted(talk.bundle.config.safety_configs)) or "none"
    table.add_row("safety config", f"{enforced.safety_config or 'none'} (known: {others})")
    table.add_row(
        "threshold", f"{exact(enforced.harm_threshold)} (ceiling {exact(talk.bundle.config.threshold_ceiling)})"
    )
    table.add_row("allowed", ", ".join(enforced.allowed) or "nothing")
    return Panel(table, title=title, subtitle=HELP, expand=False)
