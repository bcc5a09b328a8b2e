"""The Hub as this package speaks to it: what a repository holds, and each refusal as one line that says what to do."""

import errno
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from prosocial.core.errors import HubError, InputError, ProsocialError, StorageError

from .files import RemoteFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
MOST_TRIES = 4
MOST_WAIT_S = 300
HUB_FILES = (".gitattributes",)
AGAIN = "nothing half done is visible: run the same command again, it goes on from there"


@dataclass(frozen=True)
class RemoteState:
    """A repository at a commit.

    Attributes:
        commit: 40 hex digits. private, gated: who may see and fetch it.
        files: by path, without what the Hub itself adds.
    """

    commit: str
    private: bool
    gated: str | bool
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class HubClient:
    """A repository, and the client that asks for it.

    Attributes:
        name: `ORG/NAME`. api: the client of huggingface_hub.
    """

    name: str
    api: "HfApi"

    @classmethod
    def connect(cls, name: str, *, endpoint: str | None = None, token: str | None = None) -> Self:
        """Return a client; nothing is sent yet.

        Args:
            name: `ORG/NAME`. endpoint: address of the Hub; None: `HF_ENDPOINT` or the public one.
            token: None: the one of `hf auth login` or `HF_TOKEN`.

        Raises:
            InputError: the name is no `ORG/NAME`.
        """
        from huggingface_hub import HfApi

        if not NAME.fullmatch(name) or "--" in name or ".." in name:
            raise InputError(f"a repository should be named ORG/NAME (letters, digits, -, _ and .), found {name!r}")
        return cls(name, HfApi(endpoint=endpoint, token=token, library_name="prosocial"))

    @property
    def has_token(self) -> bool:
        """Whether requests are made in somebody's name."""
        from huggingface_hub import get_token

        return bool(self.api.token or get_token())

    def require_token(self) -> None:
        """Refuse to publish without one.

        Raises:
            InputError: there is none.
        """
        if not self.has_token:
            raise InputError(
                "publishing needs a token of the Hub, there is none: run `hf auth login`, or set HF_TOKEN to a token "
                "that may write"
            )

    def look(self, revision: str | None = None, *, is_optional: bool = False) -> RemoteState | None:
        """Return what the repository holds at a revision, None where there is no such repository.

        Args:
            revision: branch, tag or commit; None: the head. is_optional: None for a revision that is not there either.

        Raises:
            HubError: the Hub does not say, or knows no such revision.
        """
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        def ask() -> Any:
            try:
                return self.api.model_info(self.name, revision=revision, files_metadata=True)
            except RevisionNotFoundError:
                if not is_optional:
                    raise
                return None
            except RepositoryNotFoundError as error:
                if isinstance(error, GatedRepoError) or error.response.status_code != 404:
                    raise
                return None

        info = self.ask("looking at it", ask)
        if info is None:
            return None
        files = {
            each.rfilename: RemoteFile(each.size or 0, each.blob_id or "", each.lfs.sha256 if each.lfs else None)
            for each in info.siblings or ()
            if each.rfilename not in HUB_FILES
        }
        return RemoteState(info.sha or "", bool(info.private), info.gated or False, files)

    def ask(self, doing: str, request: Callable[[], Result], *, is_patient: bool = True) -> Result:
        """Make a request; wait where the Hub says for how long, and turn what it refuses into one line.

        Args:
            doing: what the request is for, after "while". request: makes it.
            is_patient: wait and ask again after a rate limit; not for requests that the client repeats itself.

        Raises:
            HubError, StorageError: it could not be done.
        """
        for n_tries in range(1, MOST_TRIES + 1):
            try:
                return request()
            except foreseen() as error:
                seconds = _asked_to_wait(error)
                if not is_patient or seconds is None or seconds > MOST_WAIT_S or n_tries == MOST_TRIES:
                    raise explained(error, self.name, doing) from None
                time.sleep(seconds)
        raise AssertionError("the loop returns or raises")


def foreseen() -> tuple[type[Exception], ...]:
    """Return what the client raises where the world is to blame."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # OSError, and the root of the errors of whichever HTTP library this version of the client uses. RuntimeError: an
    # upload in a thread; ValueError: an answer that is not what it should be.
    bases = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    return (*bases, HFValidationError, RuntimeError, ValueError)


def explained(error: BaseException, name: str, doing: str) -> ProsocialError:
    """Return an error of the client as one line: what should hold, what was found, what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, ProsocialError):
        return error
    chain = [error, error.__cause__, error.__context__]
    answered = next((each for each in chain if isinstance(each, HfHubHTTPError)), None)
    if answered is not None:
        return HubError(_refusal(answered, name, doing))
    if any(isinstance(each, OfflineModeIsEnabled) for each in chain):
        return HubError(f"the Hub should be reachable for {name}, HF_HUB_OFFLINE forbids it: unset it")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"could not keep {name}: {error.strerror}; free space, or choose another cache folder")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return StorageError(f"could not write {error.filename}: {error.strerror}; choose another cache folder")
    return HubError(f"the Hub should answer for {name}, it did not while {doing} ({_first_line(error)}); {AGAIN}")


def _refusal(error: Any, name: str, doing: str) -> str:
    """Return what an answer of the Hub means."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    status, organisation = error.response.status_code, name.split("/")[0]
    if isinstance(error, RevisionNotFoundError):
        return f"{name} should have that revision, the Hub knows none of that name: give a branch, tag or commit of it"
    if isinstance(error, GatedRepoError):
        return f"{name} is gated, the Hub refused it ({status}): ask for access on its page, then run this again"
    meanings = {
        401: "the Hub does not know your token, or wants one: run `hf auth login`, or set HF_TOKEN to a valid one",
        403: f"your token has no right to it: ask {organisation} for the role write, or make a token that may write",
        404: f"there is no repository {name}, or it is private and your token may not see it: check name and token",
        409: "something of that name is there already or is being made: run this again to see the new state",
        412: "somebody committed to it in between, and nothing was written: run this again to see the new plan",
        413: "a file is too large for it: save the weights in smaller shards",
        429: f"it limits how often you may ask{_seconds(error)}: wait, then run the same command, it goes on",
        507: f"it has no room left for you: free some, then run this again; {AGAIN}",
    }
    meaning = meanings.get(status, f"{error.server_message or _first_line(error)}; {AGAIN}")
    return f"the Hub refused {name} ({status}) while {doing}: {meaning}"


def _seconds(error: Any) -> str:
    seconds = _asked_to_wait(error)
    return "" if seconds is None else f" and asks to wait {seconds:.0f} s"


def _asked_to_wait(error: BaseException) -> float | None:
    """Return the seconds after which the Hub lets itself be asked again, None where it did not say so."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # public, not listed

    response = getattr(error, "response", None)
    if response is None or response.status_code != 429:
        return None
    said = response.headers.get("Retry-After", "").strip()
    if said.isdigit():
        return float(said)
    limit = parse_ratelimit_headers(response.headers)
    return None if limit is None else float(limit.reset_in_seconds)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
