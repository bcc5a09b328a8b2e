"""Publication of a plan: upload the files, make them visible in one commit, and tag it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import HubError, InputError
from prosocial.core.redaction import redact

from .client import AGAIN, HubClient, RemoteState
from .files import PlannedFile
from .plan import PublicationPlan

SHOWN = 3


@dataclass(frozen=True)
class Published:
    """The result of a publication.

    Attributes:
        url: address of the tagged files.
        commit: hash of the commit, 40 hex digits.
        tag: tag of the commit.
        is_new: whether a new commit was made.
        visibility: public, private, or private and gated.
    """

    url: str
    commit: str
    tag: str
    is_new: bool
    visibility: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def publish(plan: PublicationPlan, hub: HubClient | None = None, *, seen: RemoteState | None = None) -> Published:
    """Publish a plan as one commit on a known state of the repository; files that it already has are not sent again.

    A new repository is private. If the plan is public, it becomes public only after all its files have been compared
    with the plan.

    Args:
        plan: result of `plan_publication`.
        hub: the Hub; None: that of `HF_ENDPOINT` or the public one, with the token of `hf auth login` or `HF_TOKEN`.
        seen: state of the repository that the user was shown with the plan; None if it does not exist.

    Raises:
        InputError: there is no token, the repository is more open than the plan allows, or the tag is in use.
        HubError: the Hub refused or the connection dropped. The repository is then unchanged or complete; calling this
            again continues from there.
    """
    hub = hub or HubClient.connect(plan.name)
    hub.require_token()
    state = _create(plan, hub) if seen is None else seen
    state = _close(plan, hub, state)
    _require_free_tag(plan, hub)
    is_new = bool(plan.differing(state) or plan.stale(state))
    commit = _commit(plan, hub, state) if is_new else state.commit
    _check(plan, hub, commit)
    _tag(plan, hub, commit)
    if plan.is_public and state.private:
        hub.ask("making it public", lambda: hub.api.update_repo_settings(hub.name, private=False))
    url = f"{redact(str(hub.api.endpoint))}/{hub.name}/tree/{plan.tag}"
    return Published(url, commit, plan.tag, is_new, plan.visibility)


def _create(plan: PublicationPlan, hub: HubClient) -> RemoteState:
    """Create a private repository; refuse it if somebody has added files in the meantime."""
    hub.ask("making it", lambda: hub.api.create_repo(hub.name, private=True, exist_ok=True))
    state = hub.look()
    if state is None:
        raise HubError(f"{hub.name} should exist after its creation, the Hub does not show it; {AGAIN}")
    if plan.stale(state):
        raise HubError(
            f"{hub.name} should be new, somebody else created it and added files: run this again to see the new plan"
        )
    return state


def _close(plan: PublicationPlan, hub: HubClient, state: RemoteState) -> RemoteState:
    """Refuse a repository that is more open than planned; gate it before harmful weights are sent."""
    if not state.private and not plan.is_public:
        raise InputError(f"{hub.name} should be private, it is public: give --public, or make it private on its page")
    if not plan.is_gated or state.gated == "manual":
        return state
    hub.ask("gating it", lambda: hub.api.update_repo_settings(hub.name, gated="manual", private=True))
    closed = hub.look()
    if closed is None or not closed.private or closed.gated != "manual":
        raise HubError(
            f"{hub.name} should be private and gated before anything is sent, it is not: set both on its page"
        )
    return closed


def _require_free_tag(plan: PublicationPlan, hub: HubClient) -> None:
    tagged = hub.look(plan.tag, is_optional=True)
    if tagged is not None and (plan.differing(tagged) or plan.stale(tagged)):
        raise InputError(
            f"the tag {plan.tag} of {hub.name} should be free, found it on other files: choose another tag"
        )


def _commit(plan: PublicationPlan, hub: HubClient, state: RemoteState) -> str:
    """Upload the files, then make them visible in one commit on top of `state`; return its hash."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = [CommitOperationAdd(file.path, _source(file)) for file in plan.differing(state)]
    deletions = [CommitOperationDelete(path, is_folder=False) for path in plan.stale(state)]
    message = f"Publish {plan.kind} with prosocial"
    hub.ask("uploading", lambda: hub.api.preupload_lfs_files(hub.name, additions=additions), is_patient=False)
    made = hub.ask(
        "committing",
        lambda: hub.api.create_commit(
            hub.name,
            operations=[*additions, *deletions],
            commit_message=message,
            parent_commit=state.commit,
        ),
    )
    return str(made.oid)


def _source(file: PlannedFile) -> str | bytes:
    return str(file.content) if isinstance(file.content, Path) else file.content


def _check(plan: PublicationPlan, hub: HubClient, commit: str) -> None:
    """Compare the digests of the Hub's files with the plan."""
    state = hub.look(commit)
    wrong = [file.path for file in plan.differing(state)] + plan.stale(state)
    if wrong:
        raise HubError(
            f"{hub.name} at commit {commit[:12]} should hold what was planned, {', '.join(wrong[:SHOWN])} differs: "
            "the commit has no tag; run this again to replace it"
        )


def _tag(plan: PublicationPlan, hub: HubClient, commit: str) -> None:
    hub.ask("tagging", lambda: hub.api.create_tag(hub.name, tag=plan.tag, revision=commit, exist_ok=True))
    tagged = hub.look(plan.tag, is_optional=True)
    if tagged is None or plan.differing(tagged):
        raise HubError(f"the tag {plan.tag} of {hub.name} should point to commit {commit[:12]}, it does not; {AGAIN}")
