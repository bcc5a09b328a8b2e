"""Signing a safety config, and deciding whether to accept a signed one (torch-free).

A signed config is an in-toto statement whose subject is the files of one bundle. Its content is used only after the
signature has been verified, and is then checked against the bundle's ceilings and the scope of the signer's key.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import new_file
from prosocial.core.signing.envelope import seal, statement
from prosocial.core.signing.keys import SigningKey

from ..configs.authorised import AuthorisedConfig, Clock, utc_now
from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import NamedConfig
from ..decoding.config import DecodingConfig
from .delegation import Delegation, read_delegation
from .statements import DatedClaims, bound_subject, claims_of, dated, open_signed, require_bound, stated_files
from .trust import TrustStore

PREDICATE_TYPE = "urn:prosocial:safety-config:v1"
BINDS_LESS = (
    "signed with version 0.1.0, which binds graph and weights, but not decoding config, chat template and tokenizer: "
    "sign it again"
)
_log = logging.getLogger("prosocial.configs")
_log.addHandler(logging.NullHandler())  # the application decides where log messages go


class Claims(DatedClaims):
    """The content of a signed config: the config, with its validity and serial number.

    Attributes:
        config: the safety config.
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
    """Sign a config for one bundle and return what was signed.

    Args:
        config: the config.
        out: path of the new signed file.
        key: private key of the signer.
        decoding: decoding config of the bundle.
        manifest: manifest of the bundle.
        valid_days: length of the validity in days.
        not_before: start of the validity; default: now.

    Raises:
        InputError: the config has no mask, exceeds the bundle's ceilings or would never be valid, or `out` exists or is
            being written.
    """
    if config.is_text_only:
        raise InputError(
            f"safety config {config.name} should list the categories it allows, found no list: propose one with "
            "prosocial config compile"
        )
    decoding.require_config(config)
    times = dated("a signed config", valid_days=valid_days, not_before=not_before)
    claims = Claims(config=config, categories=decoding.category_registry.digest, **times)
    content = statement(PREDICATE_TYPE, bound_subject(manifest), claims.model_dump(mode="json", by_alias=True))
    with new_file(Path(out)) as path:
        seal(path, content, key)
    return claims


def authorise(
    path: Path | str,
    *,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    delegation: Path | str | None = None,
    graph_files: Collection[str] = (),
    clock: Clock = utc_now,
) -> AuthorisedConfig:
    """Verify a signed config against the operator's trusted keys and the bundle; a refusal is also logged.

    Args:
        path: path of the signed config.
        trust: the operator's trusted keys and revocations.
        decoding: decoding config of the opened bundle.
        manifest: manifest of the opened bundle.
        delegation: path of the bundle's statement that names further keys (`DELEGATION_FILE`), signed by a trusted key;
            None for no further keys.
        graph_files: names of the files that the bundle's graph consists of, to accept statements of version 0.1.0,
            which bind the files `model.onnx*` only; empty to refuse them.
        clock: returns the current time.

    Raises:
        RefusedConfig: the config must not be used; `reason` and the message say why.
    """
    path, delegation = Path(path), None if delegation is None else Path(delegation)
    try:
        authorised = _authorise(path, trust, decoding, manifest, delegation, graph_files, clock)
    except RefusedConfig as refused:
        _log.warning("%s: %s", path.name, refused)
        raise
    if not authorised.binds_all:
        _log.warning("%s: %s", path.name, BINDS_LESS)
    return authorised


def _authorise(
    path: Path,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    delegation: Path | None,
    graph_files: Collection[str],
    clock: Clock,
) -> AuthorisedConfig:
    named = None
    try:
        said, signer = open_signed(path, trust.keys)
    except RefusedConfig as refused:
        if refused.reason is not Reason.NOT_TRUSTED or delegation is None or not delegation.is_file():
            raise
        named = _delegation(delegation, trust, decoding, manifest, graph_files, because=refused)
        said, signer = open_signed(path, named.keys)
    if trust.has_revoked(signer):
        raise RefusedConfig(Reason.REVOKED_KEY, f"key {signer.name} was revoked")
    claims, files = claims_of(said, path, Claims, predicate_type=PREDICATE_TYPE), stated_files(said, path)
    if claims.serial in trust.revoked_serials:
        raise RefusedConfig(Reason.REVOKED_SERIAL, f"{claims.config.name} with serial {claims.serial} was revoked")
    authorised = AuthorisedConfig(
        claims.config,
        claims.serial,
        signer.hint,
        signer.name if named is None else f"{signer.name} (named by {named.signer.name})",
        *_times(claims, named),
        files,
        claims.categories,
        clock,
    )
    authorised.require_time()
    binds_all = require_bound(files, manifest, graph_files, what=claims.config.name)
    authorised = replace(authorised, binds_all=binds_all and (named is None or named.binds_all))
    authorised.require_categories(decoding.category_registry.digest)
    try:
        decoding.require_config(claims.config)
    except InputError as error:
        raise RefusedConfig(Reason.BEYOND_CEILING, str(error)) from None
    scope = trust.scopes.get(signer.hint) if named is None else named.scopes[signer.hint]
    if scope is not None:
        scope.require(claims.config.allowed, decoding.check_threshold(claims.config.threshold), who=signer.name)
    return authorised


def _delegation(
    path: Path,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    graph_files: Collection[str],
    *,
    because: RefusedConfig,
) -> Delegation:
    """Return the keys that the bundle names; if its statement is refused too, the error gives both reasons."""
    try:
        return read_delegation(path, trust=trust, decoding=decoding, manifest=manifest, graph_files=graph_files)
    except RefusedConfig as refused:
        raise RefusedConfig(
            refused.reason, f"{because.told}; the bundle's statement of further keys does not help: {refused.told}"
        ) from None


def _times(claims: Claims, named: Delegation | None) -> tuple[datetime, datetime]:
    """Return the validity of a config: its own, intersected with that of the statement that names its key."""
    if named is None:
        return claims.not_before, claims.not_after
    return max(claims.not_before, named.not_before), min(claims.not_after, named.not_after)
