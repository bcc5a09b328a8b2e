"""One commit or none: whatever goes wrong at any request, the repository holds the old state or the new one."""

import time
from pathlib import Path

import pytest

from prosocial.core.errors import HubError, InputError, ProsocialError
from prosocial.export.hub import HubClient, PublicationPlan, plan_publication, publish

from ...hub.hub_fixture import Fault, LoopbackHub, Repository
from ...hub.loopback_hub.repository import Blob, is_large
from ...hub_helpers import NAME, make_folder, publish_folder

# The requests of an update, and of a first publication, in their order.
UPDATE = ("info", "info", "preupload", "batch", "upload", "verify", "commit", "info", "tag", "info")
FIRST = ("info", "create", "info", "info", "preupload", "batch", "upload", "verify", "validate", *UPDATE[-4:])
REFUSALS = {
    401: "missing or not valid",
    403: "lacks the permission",
    409: "already in use",
    412: "somebody committed",
    413: "too large",
    429: "rate limit is exceeded",
    500: "again",
    507: "quota is exceeded",
}


Folders = tuple[Path, Path]
Plans = list[PublicationPlan]
ALWAYS = ("drop", "lose")  # the refusals, which tell nothing new of a state, in the long tier


def numbered(requests: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return each request with how many of its name come before it."""
    return [(step, requests[:at].count(step)) for at, step in enumerate(requests)]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Two states of one artefact; one large file and small ones differ. Tests that change one copy it."""
    place = tmp_path_factory.mktemp("states")
    return make_folder(place / "old"), make_folder(place / "new", weights=b"\0weights two!")


@pytest.fixture(scope="module")
def plans(folders: Folders) -> Plans:
    return [plan_publication(folder, NAME, license="apache-2.0") for folder in folders]


def state(plan: PublicationPlan) -> dict[str, bytes]:
    """Return what a repository holds once a plan is published."""
    return {file.path: file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            for file in plan.files}  # fmt: skip


def publish_plan(plan: PublicationPlan) -> None:
    hub = HubClient.connect(NAME)
    publish(plan, hub, seen=hub.look())


def seed(hub: LoopbackHub, plan: PublicationPlan) -> Repository:
    """Put a published plan into the Hub, without the client."""
    hub.repositories[NAME] = Repository(NAME, private=True)
    files = {path: Blob(content, is_large(path, content)) for path, content in state(plan).items()}
    hub.repositories[NAME].commit(files, ())
    return hub.repositories[NAME]


def test_a_folder_is_published_as_one_commit_private_and_tagged(
    hub: LoopbackHub, folders: Folders, plans: Plans
) -> None:
    first = publish_folder(folders[0])
    assert sorted(hub.log) == sorted([*FIRST, "upload", "verify"])  # two large files
    hub.log.clear()
    second, repository = publish_folder(folders[1]), hub.repositories[NAME]

    assert tuple(hub.log) == UPDATE  # so the tables below name every request
    assert repository.private and len(repository.commits) == 3  # the Hub's own first, and one each
    assert repository.files() == state(plans[1]) and repository.files(first.tag) == state(plans[0])
    assert second.is_new and second.commit == repository.head == repository.refs[second.tag]
    assert second.url == f"{hub.url}/{NAME}/tree/{second.tag}"


@pytest.mark.parametrize(
    "status", [*ALWAYS, *(pytest.param(one, marks=pytest.mark.prove) for one in REFUSALS if one not in ALWAYS)]
)
def test_an_update_is_whole_or_not_there(hub: LoopbackHub, plans: Plans, waits: list[float], status: int | str) -> None:
    states, tag = [state(plan) for plan in plans], plans[1].tag
    for step, skip in numbered(UPDATE):
        repository = seed(hub, plans[0])
        hub.blobs.clear()
        hub.faults = [Fault(step, "refuse", status, skip=skip)] if isinstance(status, int) else []
        hub.faults = hub.faults or [Fault(step, status, skip=skip)]  # type: ignore[arg-type]
        try:
            publish_plan(plans[1])
        except ProsocialError as error:
            assert NAME in str(error) and "\n" not in str(error)
        else:
            pytest.fail(f"{step} {skip} went through")

        assert repository.files() in states, (step, skip)
        assert tag not in repository.refs or repository.files(tag) == states[1], (step, skip)
        hub.faults = []
        publish_plan(plans[1])
        assert repository.files() == repository.files(tag) == states[1], (step, skip)
        assert len(repository.commits) == 3, (step, skip)


def test_each_refusal_says_what_to_do(hub: LoopbackHub, plans: Plans, waits: list[float]) -> None:
    for status, said in REFUSALS.items():
        hub.faults = [Fault.refused("commit", status)]
        with pytest.raises(HubError, match=rf"refused org/name \({status}\) while committing: .*{said}"):
            publish_plan(plans[0])
    assert hub.files(NAME) == {}


@pytest.mark.parametrize("kind", [pytest.param("drop", marks=pytest.mark.prove), "lose"])
def test_a_first_publication_is_whole_or_not_there(
    hub: LoopbackHub, plans: Plans, waits: list[float], kind: str
) -> None:
    whole = state(plans[0])
    for step, skip in numbered(FIRST):
        hub.repositories.clear()
        hub.blobs.clear()
        hub.faults = [Fault(step, kind, skip=skip)]  # type: ignore[arg-type]
        with pytest.raises(HubError, match="again"):
            publish_plan(plans[0])

        assert hub.files(NAME) in ({}, whole), (step, skip)
        assert all(repository.private for repository in hub.repositories.values())
        hub.faults = []
        publish_plan(plans[0])
        assert hub.files(NAME) == whole and len(hub.repositories[NAME].commits) == 2, (step, skip)


def test_a_rate_limit_is_waited_for_as_long_as_it_says(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    hub.faults = [Fault.limited("commit", retry_after=1)]
    start = time.monotonic()
    publish_folder(folders[0])

    assert time.monotonic() - start >= 1 and hub.files(NAME) == state(plans[0])


@pytest.mark.parametrize("step", ["info", "preupload", "commit", "tag"])
def test_a_rate_limit_that_stays_ends_in_a_line(
    hub: LoopbackHub, folders: Folders, waits: list[float], step: str
) -> None:
    hub.faults = [Fault.limited(step, retry_after=7, times=None)]
    with pytest.raises(HubError, match="asks to wait 7 s"):
        publish_folder(folders[0])

    assert waits and min(waits) >= 7


def test_somebody_who_commits_between_plan_and_commit_is_not_overwritten(
    hub: LoopbackHub, folders: Folders, plans: Plans
) -> None:
    publish_folder(folders[0])
    client = HubClient.connect(NAME)
    plan, seen = plan_publication(folders[1], NAME, license="apache-2.0"), client.look()
    theirs = hub.repositories[NAME].commit({}, ["config.json"])
    with pytest.raises(HubError, match="somebody committed"):
        publish(plan, client, seen=seen)

    assert hub.repositories[NAME].head == theirs


def test_bytes_that_the_hub_keeps_wrongly_get_no_tag(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    hub.faults = [Fault.of("commit", "corrupt")]
    with pytest.raises(HubError, match="should hold what was planned"):
        publish_folder(folders[0])
    assert set(hub.repositories[NAME].refs) == {"main"}

    hub.faults = [Fault.of("upload", "corrupt")]
    with pytest.raises(HubError, match="422"):
        publish_folder(folders[1])
    hub.faults = []
    publish_folder(folders[1])
    assert hub.files(NAME) == state(plans[1])


def test_a_large_file_goes_up_in_parts(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    hub.part_bytes = 5
    publish_folder(folders[0])

    assert hub.log.count("upload part") == 5 and hub.log.count("complete") == 2
    assert hub.files(NAME) == state(plans[0])


def test_the_same_again_makes_no_commit(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    first, again = (publish_folder(folders[0]) for _ in range(2))

    assert (first.is_new, again.is_new) == (True, False)
    assert first.commit == again.commit and len(hub.repositories[NAME].commits) == 2


def test_a_file_that_is_gone_from_the_folder_goes_from_the_hub(
    hub: LoopbackHub, folders: Folders, plans: Plans
) -> None:
    (seed(hub, plans[0])).commit({"LICENSE": Blob(b"the text of it", False)}, ())
    publish_folder(folders[1])
    assert hub.files(NAME) == state(plans[1])


def test_a_repository_is_shown_only_when_it_is_complete(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    hub.faults = [Fault.refused("tag", 500)]
    with pytest.raises(HubError):
        publish_folder(folders[0], is_public=True)
    assert hub.repositories[NAME].private
    hub.faults = []
    assert publish_folder(folders[0], is_public=True).visibility == "public"
    assert not hub.repositories[NAME].private

    with pytest.raises(InputError, match="should be private, it is public"):
        publish_folder(folders[1])
    assert hub.files(NAME) == state(plans[0])


def test_a_tag_never_means_two_things(hub: LoopbackHub, folders: Folders, plans: Plans) -> None:
    publish_folder(folders[0], tag="v1")
    with pytest.raises(InputError, match="the tag v1 of org/name should be free"):
        publish_folder(folders[1], tag="v1")
    assert hub.files(NAME) == state(plans[0])


def test_no_token_a_wrong_one_and_a_strange_organisation(
    hub: LoopbackHub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match=r"\(403\).*ask others for the role"):
        publish_folder(folders[0], "others/name")
    monkeypatch.setenv("HF_TOKEN", "a-wrong-token")
    with pytest.raises(HubError, match=r"\(401\).*hf auth login"):
        publish_folder(folders[0])
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="there is none: run `hf auth login`"):
        publish_folder(folders[0])
    assert hub.repositories == {}


def test_a_hub_that_is_switched_off_is_one_line(
    hub: LoopbackHub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids it: unset it"):
        publish_folder(folders[0])


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/na me", "../x", "org/--"])
def test_a_name_is_org_and_name(name: str) -> None:
    with pytest.raises(InputError, match="ORG/NAME"):
        HubClient.connect(name)
