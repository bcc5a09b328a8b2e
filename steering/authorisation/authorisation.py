"""Signing a safety config, and deciding whether to follow a signed one (torch-free).

A signed config is an in-toto statement whose subject is the graph of one bundle. Nothing that it says is used before
its signature holds, and all that it says is checked again after: who signs is not trusted beyond a scope.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.signing.envelope import seal, statement
from prosocial.core.signing.keys import SigningKey

from ..configs.authorised import AuthorisedConfig, Clock, utc_now
from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import NamedConfig
from ..decoding.config import DecodingConfig
from .delegation import Delegation, read_delegation
from .statements import DatedClaims, claims_of, dated, graph_digests, graph_subject, open_signed, stated_graph
from .trust import TrustStore

PREDICATE_TYPE = "urn:prosocial:safety-config:v1"
_log = logging.getLogger("prosocial.configs")
_log.addHandler(logging.NullHandler())  # a caller decides where it goes


class Claims(DatedClaims):
    """What a signed config states, with when it holds.

    Attributes:
        config: to follow.
    """

    config: NamedConfig


def sign_config(
    config: NamedConfig,
    out: Path | str,
    *,
    key: SigningKey,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    valid_days: float,
    not_before: datetime | None = None,
) -> Claims:
    """Sign a config for one bundle.

    Args:
        out: the new file. decoding, manifest: of the bundle. valid_days: from `not_before` (default: now) on.

    Raises:
        InputError: the config is text only, the bundle's ceilings do not let it, it would never hold, or `out` exists.
    """
    if config.is_text_only:
        raise InputError(f"safety config {config.name} should list what it allows: prosocial config compile finds it")
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} should not exist yet: choose another file")
    decoding.require_config(config)
    times = dated("a signed config", valid_days=valid_days, not_before=not_before)
    claims = Claims(config=config, categories=decoding.category_registry.digest, **times)
    seal(out, statement(PREDICATE_TYPE, graph_subject(manifest), claims.model_dump(mode="json", by_alias=True)), key)
    return claims


def authorise(
    path: Path | str,
    *,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    delegation: Path | str | None = None,
    clock: Clock = utc_now,
) -> AuthorisedConfig:
    """Return a signed config that the operator's trust and the bundle let in; a refusal is logged.

    Args:
        path: of the signed config. decoding, manifest: of the bundle, as opening it has checked them.
        delegation: where the bundle may name further keys (`DELEGATION_FILE`); it needs the signature of a trusted one.

    Raises:
        RefusedConfig: it is not to be followed; says why.
    """
    path, delegation = Path(path), None if delegation is None else Path(delegation)
    try:
        return _authorise(path, trust, decoding, manifest, delegation, clock)
    except RefusedConfig as refused:
        _log.warning("%s: %s", path.name, refused)
        raise


def _authorise(
    path: Path,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    delegation: Path | None,
    clock: Clock,
) -> AuthorisedConfig:
    named = None
    try:
        said, signer = open_signed(path, trust.keys)
    except RefusedConfig as refused:
        if refused.reason is not Reason.NOT_TRUSTED or delegation is None or not delegation.is_file():
            raise
        named = _delegation(delegation, trust, decoding, manifest, because=refused)
        said, signer = open_signed(path, (*trust.keys, *named.keys))
    if signer.hint in trust.revoked_keys:
        raise RefusedConfig(Reason.REVOKED_KEY, f"key {signer.name} was revoked")
    claims, graph = claims_of(said, path, Claims, predicate_type=PREDICATE_TYPE), stated_graph(said, path)
    if claims.serial in trust.revoked_serials:
        raise RefusedConfig(Reason.REVOKED_SERIAL, f"{claims.config.name} with serial {claims.serial} was revoked")
    found = AuthorisedConfig(
        claims.config,
        claims.serial,
        signer.hint,
        signer.name if named is None else f"{signer.name} (named by {named.signer.name})",
        *_times(claims, named),
        graph,
        claims.categories,
        clock,
    )
    found.require_time()
    found.require_graph(graph_digests(manifest))
    found.require_categories(decoding.category_registry.digest)
    try:
        decoding.require_config(claims.config)
    except InputError as error:
        raise RefusedConfig(Reason.BEYOND_CEILING, str(error)) from None
    scope = trust.scopes.get(signer.hint) if named is None else named.scopes[signer.hint]
    if scope is not None:
        scope.require(claims.config.allowed, decoding.check_threshold(claims.config.threshold), who=signer.name)
    return found


def _delegation(
    path: Path, trust: TrustStore, decoding: DecodingConfig, manifest: Mapping[str, Any], *, because: RefusedConfig
) -> Delegation:
    """Return the keys that the bundle names; where it names none that count, both reasons are told."""
    try:
        return read_delegation(path, trust=trust, decoding=decoding, manifest=manifest)
    except RefusedConfig as refused:
        raise RefusedConfig(
            refused.reason, f"{because.told}; nor by a key that the bundle names: {refused.told}"
        ) from None


def _times(claims: Claims, named: Delegation | None) -> tuple[datetime, datetime]:
    """Return when a config holds: in its own time, and in that of the statement that names its key."""
    if named is None:
        return claims.not_before, claims.not_after
    return max(claims.not_before, named.not_before), min(claims.not_after, named.not_after)
