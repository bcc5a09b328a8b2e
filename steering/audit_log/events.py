"""Log events: digests, numbers and names, never the text of a user or a model (torch-free)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosocial.core.files import canonical_json, sha256_file
from prosocial.core.protocols import Message

from ..configs.authorised import AuthorisedConfig
from ..configs.refusal import RefusedConfig
from ..decoding.config import DecodingConfig
from ..decoding.controls import Steering, control_arrays, in_force
from ..decoding.reply import Reply


def request_event(
    decoding: DecodingConfig, steering: Steering, messages: Sequence[Message], reply: Reply
) -> dict[str, Any]:
    """Return the log event of an answered request, as JSON-serialisable data."""
    return {
        **started_event(decoding, steering, messages),
        "kind": "request",
        "reply": _digest(reply.text),
        "finish": reply.finish,
        "tokens": len(reply.token_ids),
        "gate_events": [{"step": each.step, "action": each.action, "reason": each.reason} for each in reply.events],
    }


def started_event(decoding: DecodingConfig, steering: Steering, messages: Sequence[Message]) -> dict[str, Any]:
    """Return the log event of a request whose reply is about to be shown while it is generated."""
    controls = control_arrays(decoding, [steering])
    return {
        "kind": "request started",
        "safety_config": _named(decoding, steering),
        "preference": dict(zip(decoding.attributes, controls.preference[0].round(4).tolist(), strict=True)),
        "allowed": [name for name, is_on in zip(decoding.categories, controls.allowed[0], strict=True) if is_on],
        "harm_threshold": in_force(controls.harm_threshold[0]),
        "reward_scale": in_force(controls.reward_scale[0]),
        "conversation": _digest(list(messages)),
    }


def stopped_event(messages: Sequence[Message], shown: str) -> dict[str, Any]:
    """Return the log event of a started request that ended early, with the digest of the text shown until then."""
    return {"kind": "request stopped", "conversation": _digest(list(messages)), "shown": _digest(shown)}


def refusal_event(path: Path, refused: RefusedConfig) -> dict[str, Any]:
    """Return the log event of a refused safety config: the SHA-256 of its file (None if missing) and the reason."""
    digest = sha256_file(path) if path.is_file() else None
    return {"kind": "refused config", "file": digest, "reason": str(refused.reason)}


def _named(decoding: DecodingConfig, steering: Steering) -> dict[str, Any] | None:
    config = steering.safety_config
    if isinstance(config, AuthorisedConfig):
        return {"name": config.name, "digest": config.config.digest, "serial": config.serial, "key": config.key}
    if not config:
        return None
    return {"name": config, "digest": _digest(decoding.safety_config(config).model_dump()), "serial": None, "key": None}


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()
