"""The requests that the client makes, by name: what each does to the Hub and what it answers."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote

from .exchange import Answer, Request, Route
from .repository import Blob, Conflict, Repository, is_large

NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
UNKNOWN = "unknown"  # the name of a request that no route is for
LFS_STATUS = 422  # a large file is not what its digest says


def find_route(method: str, path: str) -> tuple[str, Route]:
    """Return the name of a request and what answers it."""
    for name, methods, pattern, route in ROUTES:
        match = re.fullmatch(pattern, path)
        if method in methods and match:
            return name, partial(route, **{key: unquote(text) for key, text in match.groupdict().items()})
    return UNKNOWN, nothing


def _missing(text: str, code: str = "RepoNotFound") -> Answer:
    return Answer({"error": text}, 404, {"X-Error-Code": code, "X-Error-Message": text})


def _unknown() -> Answer:
    text = "Invalid credentials in Authorization header"
    return Answer({"error": text}, 401, {"X-Error-Message": text})


def _writable(request: Request, name: str) -> Repository | Answer:
    """Return the repository that a request may change, or why it may not."""
    if not request.is_known:
        return _unknown()
    if name.split("/")[0] not in request.hub.namespaces:
        text = f"You don't have the rights to write to {name}"
        return Answer({"error": text}, 403, {"X-Error-Message": text})
    return request.hub.repositories.get(name) or _missing("Repository not found")


def _readable(request: Request, name: str, revision: str) -> tuple[Repository, str] | Answer:
    found = request.hub.repositories.get(name)
    if request.headers.get("authorization") and not request.is_known:
        return _unknown()
    if found is None or (found.private and not request.is_known):
        return _missing("Repository not found")
    commit = found.resolve(revision)
    return (found, commit) if commit else _missing("Revision not found", "RevisionNotFound")


def nothing(request: Request) -> Answer:
    """Answer what this Hub knows nothing of, such as the list of coding tools that the client asks for once a day."""
    return _missing("nothing here")


def create(request: Request) -> Answer:
    """Create a repository; it begins with a commit, as on the Hub."""
    asked = request.json
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    found = _writable(request, name)
    reply = {"url": f"{request.hub.url}/{name}", "name": name, "id": "0"}
    if isinstance(found, Repository):
        return Answer(reply | {"error": "You already created this model repo"}, 409)
    if found.status != 404:
        return found
    request.hub.repositories[name] = Repository(name, private=asked.get("visibility") == "private")
    return Answer(reply)


def info(request: Request, name: str, revision: str = "main") -> Answer:
    """Say what is known of a repository."""
    found = _readable(request, name, revision)
    return found if isinstance(found, Answer) else Answer(found[0].info(found[1]))


def tree(request: Request, name: str, revision: str) -> Answer:
    """List the files of a revision."""
    found = _readable(request, name, revision)
    return found if isinstance(found, Answer) else Answer(found[0].tree(found[1]))


def settings(request: Request, name: str) -> Answer:
    """Set who may see and download a repository."""
    found = _writable(request, name)
    if isinstance(found, Answer):
        return found
    asked = request.json
    found.gated = asked.get("gated", found.gated)
    if "visibility" in asked:
        found.private = asked["visibility"] == "private"
    return Answer({"private": found.private, "gated": found.gated})


def preupload(request: Request, name: str, revision: str) -> Answer:
    """Say which files are large."""
    found = _writable(request, name)
    if isinstance(found, Answer):
        return found
    held = found.commits[found.head]
    files = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if is_large(file["path"], base64.b64decode(file["sample"])) else "regular",
            "shouldIgnore": False,
            "oid": held[file["path"]].oid if file["path"] in held else None,
        }
        for file in request.json["files"]
    ]
    return Answer({"files": files, "commitOid": found.head})


def batch(request: Request, name: str) -> Answer:
    """Say where each large file goes; one that is there already needs no upload."""
    found, hub = _writable(request, name), request.hub
    if isinstance(found, Answer):
        return found
    objects = request.json["objects"]
    if any(item["size"] > hub.max_bytes for item in objects):
        return Answer({"error": "File too large"}, 413)
    answers = []
    for item in objects:
        oid, size = item["oid"], item["size"]
        upload = {"href": f"{hub.url}/_upload/{oid}", "header": {}}
        if size > hub.part_bytes:
            starts = range(0, size, hub.part_bytes)
            parts = {str(n): f"{hub.url}/_part/{oid}/{n}" for n, _ in enumerate(starts, start=1)}
            upload = {"href": f"{hub.url}/_complete/{oid}", "header": {"chunk_size": str(hub.part_bytes)} | parts}
        actions = {"upload": upload, "verify": {"href": f"{hub.url}/_verify", "header": {}}}
        answers.append({"oid": oid, "size": size} | ({} if oid in hub.blobs else {"actions": actions}))
    return Answer({"transfer": "basic", "objects": answers})


def upload(request: Request, oid: str) -> Answer:
    """Take a large file; it is visible to nobody before a commit names it."""
    return _keep(request, oid, request.altered(request.body))


def upload_part(request: Request, oid: str, number: str) -> Answer:
    """Take a part of a large file."""
    body = request.altered(request.body)
    request.hub.parts.setdefault(oid, {})[int(number)] = body
    return Answer({}, headers={"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})


def complete(request: Request, oid: str) -> Answer:
    """Put the parts of a large file together."""
    parts = request.hub.parts.pop(oid, {})
    return _keep(request, oid, b"".join(parts[part["partNumber"]] for part in request.json["parts"]))


def _keep(request: Request, oid: str, content: bytes) -> Answer:
    if hashlib.sha256(content).hexdigest() != oid:
        return Answer({"error": "The bytes are not those of their digest"}, LFS_STATUS)
    request.hub.blobs[oid] = content
    return Answer({})


def verify(request: Request) -> Answer:
    """Say whether a large file arrived."""
    held = request.hub.blobs.get(request.json["oid"])
    return Answer({}) if held is not None and len(held) == request.json["size"] else _missing("No such file")


def validate(request: Request) -> Answer:
    """Say what is wrong with a card's metadata: nothing."""
    return Answer({"warnings": [], "errors": []})


def commit(request: Request, name: str, revision: str) -> Answer:
    """Make a commit of all operations, or none."""
    found = _writable(request, name)
    if isinstance(found, Answer):
        return found
    lines = [json.loads(line) for line in request.body.splitlines() if line]
    said = [(line["key"], line["value"]) for line in lines]
    added: dict[str, Blob] = {}
    for key, value in said:
        if key == "file":
            content = base64.b64decode(value["content"])
            added[value["path"]] = Blob(request.altered(content), False)
        if key == "lfsFile":
            if value["oid"] not in request.hub.blobs:
                return Answer({"error": f"{value['path']} was not uploaded"}, LFS_STATUS)
            added[value["path"]] = Blob(request.hub.blobs[value["oid"]], True)
    header = next(value for key, value in said if key == "header")
    try:
        deleted = [value["path"] for key, value in said if key == "deletedFile"]
        oid = found.commit(added, deleted, parent=header.get("parentCommit"))
    except Conflict:
        return Answer({"error": "A commit has happened since. Please refresh and try again."}, 412)
    url = f"{request.hub.url}/{name}/commit/{oid}"
    return Answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def tag(request: Request, name: str, revision: str) -> Answer:
    """Give a commit a name for good."""
    found = _writable(request, name)
    if isinstance(found, Answer):
        return found
    wanted, target = request.json["tag"], found.resolve(revision)
    if target is None:
        return _missing("Revision not found", "RevisionNotFound")
    if wanted in found.refs:
        return Answer({"error": "Tag reference exists already"}, 409)
    found.refs[wanted] = target
    return Answer({})


def resolve(request: Request, name: str, revision: str, path: str) -> Answer:
    """Send a file, or the range of it that is asked for."""
    found = _readable(request, name, revision)
    if isinstance(found, Answer):
        return found
    repository, commit = found
    blob = repository.commits[commit].get(path)
    if blob is None:
        return _missing("Entry not found", "EntryNotFound")
    content = request.altered(blob.content)
    headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not wanted:
        return Answer(content, 200, headers)
    first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
    return Answer(content[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"})


# Name, methods, path, what answers: in the order in which the client asks when it publishes, then when it fetches.
ROUTES: tuple[tuple[str, tuple[str, ...], str, Callable[..., Answer]], ...] = (
    ("create", ("POST",), "/api/repos/create", create),
    ("settings", ("PUT",), f"/api/models/{NAME}/settings", settings),
    ("preupload", ("POST",), f"/api/models/{NAME}/preupload/(?P<revision>.+)", preupload),
    ("batch", ("POST",), f"/{NAME}\\.git/info/lfs/objects/batch", batch),
    ("upload", ("PUT",), "/_upload/(?P<oid>[0-9a-f]{64})", upload),
    ("upload part", ("PUT",), r"/_part/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)", upload_part),
    ("complete", ("POST",), "/_complete/(?P<oid>[0-9a-f]{64})", complete),
    ("verify", ("POST",), "/_verify", verify),
    ("validate", ("POST",), "/api/validate-yaml", validate),
    ("commit", ("POST",), f"/api/models/{NAME}/commit/(?P<revision>.+)", commit),
    ("tree", ("GET",), f"/api/models/{NAME}/tree/(?P<revision>[^/]+)", tree),
    ("tag", ("POST",), f"/api/models/{NAME}/tag/(?P<revision>.+)", tag),
    ("info", ("GET",), f"/api/models/{NAME}", info),
    ("info", ("GET",), f"/api/models/{NAME}/revision/(?P<revision>.+)", info),
    ("head", ("HEAD",), f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
    ("file", ("GET",), f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
)
