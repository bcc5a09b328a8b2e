"""One commit, made of a plan: files first, where nobody sees them, then all of them at once, then a name for it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import HubError, InputError

from .client import AGAIN, HubClient, RemoteState
from .files import PlannedFile
from .plan import PublicationPlan

SHOWN = 3


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        url: of the tagged files. commit: 40 hex digits. tag: its name. is_new: whether a commit was made for it.
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
    """Publish a plan as one commit on the state that was seen; what is there already is not sent again.

    A repository is made private and shown, where the plan says so, only when everything is in it and was compared.

    Args:
        plan: of `plan_publication`.
        hub: where; None: the Hub of `HF_ENDPOINT` or the public one, with the token of `hf auth login` or `HF_TOKEN`.
        seen: what the repository held when the plan was looked at; None: nothing, so that one with files is refused.

    Raises:
        InputError: there is no token, or the repository is more open than the plan allows, or its tag is taken.
        HubError: the Hub refused, or the connection dropped: the repository is as it was, or complete; asked again
            this goes on from there.
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
    url = f"{hub.api.endpoint}/{hub.name}/tree/{plan.tag}"
    return Published(url, commit, plan.tag, is_new, plan.visibility)


def _create(plan: PublicationPlan, hub: HubClient) -> RemoteState:
    """Make a private repository; one that somebody filled meanwhile is another one than the plan saw."""
    hub.ask("making it", lambda: hub.api.create_repo(hub.name, private=True, exist_ok=True))
    state = hub.look()
    if state is None:
        raise HubError(f"{hub.name} should be there once it was made, the Hub does not show it; {AGAIN}")
    if plan.stale(state):
        raise HubError(f"{hub.name} came to be while this ran, and holds files: run this again to see the new plan")
    return state


def _close(plan: PublicationPlan, hub: HubClient, state: RemoteState) -> RemoteState:
    """Refuse a repository that is more open than planned, and gate one for harmful weights before they are sent."""
    if not state.private and not plan.is_public:
        raise InputError(f"{hub.name} should be private, it is public: say --public, or make it private on its page")
    if not plan.is_gated or state.gated == "manual":
        return state
    hub.ask("gating it", lambda: hub.api.update_repo_settings(hub.name, gated="manual", private=True))
    closed = hub.look()
    if closed is None or not closed.private or closed.gated != "manual":
        raise HubError(f"{hub.name} should be private and gated before anything is sent, the Hub does not say so")
    return closed


def _require_free_tag(plan: PublicationPlan, hub: HubClient) -> None:
    tagged = hub.look(plan.tag, is_optional=True)
    if tagged is not None and (plan.differing(tagged) or plan.stale(tagged)):
        raise InputError(f"the tag {plan.tag} of {hub.name} should be free, it names another state: choose another")


def _commit(plan: PublicationPlan, hub: HubClient, state: RemoteState) -> str:
    """Send the files, then make them visible all at once on the commit that was seen."""
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
    """Compare what the Hub holds with what was planned, byte for byte by its digests."""
    state = hub.look(commit)
    wrong = [file.path for file in plan.differing(state)] + plan.stale(state)
    if wrong:
        raise HubError(
            f"{hub.name} at commit {commit[:12]} should hold what was planned, {', '.join(wrong[:SHOWN])} differs: "
            "it has no tag; run this again to replace it"
        )


def _tag(plan: PublicationPlan, hub: HubClient, commit: str) -> None:
    hub.ask("tagging", lambda: hub.api.create_tag(hub.name, tag=plan.tag, revision=commit, exist_ok=True))
    tagged = hub.look(plan.tag, is_optional=True)
    if tagged is None or plan.differing(tagged):
        raise HubError(f"the tag {plan.tag} of {hub.name} should name commit {commit[:12]}, it does not; {AGAIN}")
