"""A client for one Hub repository: its state, and the Hub's errors as one-line messages that say what to do."""

import errno
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from prosocial.core.errors import HubError, InputError, ProsocialError, StorageError
from prosocial.core.redaction import redact

from .files import RemoteFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Result = TypeVar("Result")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
MOST_TRIES = 4
MOST_WAIT_S = 300
HUB_FILES = (".gitattributes",)
AGAIN = "no partial result is visible: run the same command again, it continues from there"


@dataclass(frozen=True)
class RemoteState:
    """A repository at a commit.

    Attributes:
        commit: hash of the commit, 40 hex digits.
        private: whether only members can see the repository.
        gated: False, or how access requests are approved ("auto" or "manual").
        files: files by path, without those that the Hub adds.
    """

    commit: str
    private: bool
    gated: str | bool
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class HubClient:
    """A client for one repository.

    Attributes:
        name: repository, `ORG/NAME`.
        api: the client of huggingface_hub.
    """

    name: str
    api: "HfApi"

    @classmethod
    def connect(cls, name: str, *, endpoint: str | None = None, token: str | None = None) -> Self:
        """Return a client; sends no request yet.

        Args:
            name: repository, `ORG/NAME`.
            endpoint: address of the Hub; None for `HF_ENDPOINT` or the public Hub.
            token: token for the Hub; None for that of `hf auth login` or `HF_TOKEN`.

        Raises:
            InputError: the name does not have the form `ORG/NAME`.
        """
        from huggingface_hub import HfApi

        if not NAME.fullmatch(name) or "--" in name or ".." in name:
            raise InputError(f"a repository name should be ORG/NAME (letters, digits, -, _ and .), found {name!r}")
        return cls(name, HfApi(endpoint=endpoint, token=token, library_name="prosocial"))

    @property
    def has_token(self) -> bool:
        """Whether requests are authenticated."""
        from huggingface_hub import get_token

        return bool(self.api.token or get_token())

    def require_token(self) -> None:
        """Check that there is a token, which publishing needs.

        Raises:
            InputError: there is no token.
        """
        if not self.has_token:
            raise InputError(
                "publishing needs a token for the Hub, there is none: run `hf auth login`, or set HF_TOKEN to a token "
                "with write access"
            )

    def look(self, revision: str | None = None, *, is_optional: bool = False) -> RemoteState | None:
        """Return the state of the repository at a revision, None if the repository does not exist.

        Args:
            revision: branch, tag or commit; None for the head of the default branch.
            is_optional: return None for a missing revision as well.

        Raises:
            HubError: the request failed, or there is no such revision.
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
        """Make a request and return its result; wait and retry after a rate limit.

        Args:
            doing: purpose of the request, for errors ("... while uploading").
            request: makes the request.
            is_patient: wait and retry after a rate limit; False for requests that the client itself retries.

        Raises:
            HubError: the Hub refused the request or did not answer.
            StorageError: the disk is full or not writable.
        """
        for n_tries in range(1, MOST_TRIES + 1):
            try:
                return request()
            except foreseen() as error:
                seconds = _requested_wait(error)
                if not is_patient or seconds is None or seconds > MOST_WAIT_S or n_tries == MOST_TRIES:
                    raise explained(error, self.name, doing) from None
                time.sleep(seconds)
        raise AssertionError("the loop returns or raises")


def foreseen() -> tuple[type[Exception], ...]:
    """Return the exceptions of the client that the network, the Hub or the disk may cause."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The bases are OSError and the base error of the HTTP library that this version of the client uses. RuntimeError
    # comes from uploads in threads, ValueError from answers that cannot be parsed.
    bases = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    return (*bases, HFValidationError, RuntimeError, ValueError)


def explained(error: BaseException, name: str, doing: str) -> ProsocialError:
    """Return the one-line error of this package for an exception of the client."""
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
        return StorageError(
            f"could not store {name}: {error.strerror}; free disk space, or choose another cache folder"
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return StorageError(f"could not write {error.filename}: {error.strerror}; choose another cache folder")
    return HubError(f"the Hub should answer for {name}, it failed while {doing} ({_first_line(error)}); {AGAIN}")


def _refusal(error: Any, name: str, doing: str) -> str:
    """Return the message for an error response of the Hub."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    status, organisation = error.response.status_code, name.split("/")[0]
    if isinstance(error, RevisionNotFoundError):
        return f"{name} should have this revision, the Hub knows none of that name: give a branch, tag or commit of it"
    if isinstance(error, GatedRepoError):
        return f"{name} is gated, the Hub refused it ({status}): ask for access on its page, then run this again"
    meanings = {
        401: "your token is missing or not valid: run `hf auth login`, or set HF_TOKEN to a valid token",
        403: f"your token lacks the permission: ask {organisation} for the role write, or use one with write access",
        404: f"there is no repository {name}, or it is private and your token may not see it: check name and token",
        409: "the name is already in use, or its creation is in progress: run this again to see the new state",
        412: "somebody committed to it in the meantime, nothing was written: run this again to see the new plan",
        413: "a file is too large: save the weights in smaller shards",
        429: f"the rate limit is exceeded{_seconds(error)}: wait, then run the same command again, it continues",
        507: f"your storage quota is exceeded: free some space; {AGAIN}",
    }
    meaning = meanings.get(status, f"{redact(error.server_message or _first_line(error))}; {AGAIN}")
    return f"the Hub refused {name} ({status}) while {doing}: {meaning}"


def _seconds(error: Any) -> str:
    seconds = _requested_wait(error)
    return "" if seconds is None else f" (the Hub asks to wait {seconds:.0f} s)"


def _requested_wait(error: BaseException) -> float | None:
    """Return how many seconds the Hub asks to wait before a retry, None if the error is not a rate limit."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # public, not listed

    response = getattr(error, "response", None)
    if response is None or response.status_code != 429:
        return None
    retry_after = response.headers.get("Retry-After", "").strip()
    if retry_after.isdigit():
        return float(retry_after)
    limit = parse_ratelimit_headers(response.headers)
    return None if limit is None else float(limit.reset_in_seconds)


def _first_line(error: BaseException) -> str:
    lines = redact(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
