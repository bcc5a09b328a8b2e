"""The loopback Hub serves the real client."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from .hub_fixture import Fault, LoopbackHub


def test_the_client_does_with_it_what_it_does_with_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    api = HfApi()
    url = api.create_repo("org/name", private=True)
    assert str(url) == f"{hub.url}/org/name" and api.model_info("org/name").private
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "config.json").write_text("{}")
    (tmp_path / "folder" / "sub" / "weights.safetensors").write_bytes(bytes(1000))
    api.upload_folder(repo_id="org/name", folder_path=tmp_path / "folder")
    api.create_tag("org/name", tag="v1")
    api.delete_file("config.json", "org/name")

    assert set(hub.files("org/name")) == {"sub/weights.safetensors"}
    fetched = Path(snapshot_download("org/name", revision="v1"))
    assert (fetched / "config.json").read_text() == "{}"
    assert api.verify_repo_checksums("org/name", revision="v1").mismatches == []
    listed = api.list_repo_tree("org/name", recursive=True)
    assert {each.path for each in listed} == {".gitattributes", "sub/weights.safetensors"}


def test_a_private_repository_is_shown_to_its_token_only(hub: LoopbackHub) -> None:
    HfApi().create_repo("org/name", private=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info("org/name")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token="another").model_info("org/name")


def test_a_fault_strikes_as_often_as_it_says(hub: LoopbackHub) -> None:
    hub.faults = [Fault("info", status=500, skip=1, times=1)]
    api = HfApi()
    api.create_repo("org/name")
    api.model_info("org/name")
    with pytest.raises(HfHubHTTPError, match="500"):
        api.model_info("org/name")
    assert api.model_info("org/name").id == "org/name"


def test_a_download_is_resumed_by_range(hub: LoopbackHub, tmp_path: Path) -> None:
    api = HfApi()
    api.create_repo("org/name")
    api.upload_file(path_or_fileobj=bytes(range(250)) * 400, path_in_repo="a.bin", repo_id="org/name")
    hub.faults = [Fault.of("file", "cut", times=1)]

    assert Path(hf_hub_download("org/name", "a.bin")).read_bytes() == bytes(range(250)) * 400
    assert hub.log.count("file") == 2
