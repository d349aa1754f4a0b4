"""Small Hugging Face Hub on 127.0.0.1, for tests that push and load over HTTP.

    with LocalHub(folder) as hub:
        ...  # start processes with hub.environment()

It implements what `huggingface_hub` and `datasets` request: whoami, repositories, preupload, LFS, commits, pull
requests, branches and tags, info, tree, paths-info, refs, and files with ranges. Contents are in `folder`, named by
sha256. Clients must set HF_ENDPOINT before they import `huggingface_hub`, and HF_HUB_DISABLE_XET=1. Private
repositories require a token. `hub.fail(...)` simulates faults.
"""

import base64
import hashlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


USER = "umons"
CUT_AT = 1000  # bytes of a file, after which nothing more of it comes
LFS_BYTES = 1 << 20  # files above this size go by LFS, as those with these suffixes do
LFS_SUFFIXES = (".bin", ".safetensors", ".parquet", ".arrow", ".pt", ".onnx", ".npy")
REPO = r"(?P<repo>[\w.\-]+/[\w.\-]+)"
KIND = r"(?P<kind>model|dataset|space)s"
FRONT_MATTER = re.compile(r"\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", re.DOTALL)


class HubError(Exception):
    """Error response: its status, the error code of `huggingface_hub`, and a message."""

    def __init__(self, status: int, code: str | None, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _pointer(sha: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()


class Store:
    """Repositories as JSON files ({refs, tags, commits}), and contents by sha256. Files are written atomically."""

    def __init__(self, root: str | os.PathLike):
        self.root, self.lock = Path(root), threading.RLock()
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)

    def blob(self, sha: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha):
            raise HubError(400, "BadOid", f"{sha} is not a sha256")
        return self.root / "blobs" / sha

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        if not self.blob(sha).exists():
            self._write(self.blob(sha), data)
        return sha

    def put_file(self, data: bytes) -> dict[str, Any]:
        return {"oid": _git_oid(data), "size": len(data), "sha": self.put(data), "lfs": False}

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)

    def path(self, kind: str, repo: str) -> Path:
        return self.root / f"{kind}s" / f"{repo}.json"

    def load(self, kind: str, repo: str) -> dict[str, Any]:
        try:
            return json.loads(self.path(kind, repo).read_bytes())
        except FileNotFoundError:
            raise HubError(404, "RepoNotFound", f"There is no {kind} {repo}") from None

    def save(self, kind: str, repo: str, content: dict[str, Any]) -> None:
        self._write(self.path(kind, repo), json.dumps(content).encode())

    def commit(self, content: dict, branch: str, files: dict[str, dict], title: str, message: str = "") -> str:
        parent = content["refs"].get(branch)
        state = [parent, sorted((path, file["oid"]) for path, file in files.items()), title, time.time_ns()]
        oid = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        content["commits"][oid] = {
            "files": files, "title": title, "message": message, "date": _now(), "parent": parent,
        }  # fmt: skip
        content["refs"][branch] = oid
        return oid

    def files(self, content: dict, revision: str) -> tuple[str, dict[str, dict]]:
        """Return (commit, {path: file}) of a branch, a tag or a commit."""
        oid = content["refs"].get(revision) or content["tags"].get(revision) or revision
        if oid not in content["commits"]:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, content["commits"][oid]["files"]

    def card_data(self, files: dict[str, dict]) -> dict[str, Any] | None:
        if "README.md" not in files:
            return None
        match = FRONT_MATTER.match(self.blob(files["README.md"]["sha"]).read_text(encoding="utf-8"))
        return json.loads(json.dumps(yaml.safe_load(match[1]), default=str)) if match else None


def _entry(path: str, file: dict[str, Any]) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "oid": file["oid"], "size": file["size"]}
    if file["lfs"]:
        size = file["size"]
        entry["lfs"] = {"oid": file["sha"], "size": size, "pointerSize": len(_pointer(file["sha"], size))}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}


ROUTES: list[tuple[str, re.Pattern, Callable]] = []


def route(method: str, pattern: str) -> Callable:
    """Register a handler for a method (GET includes HEAD) and a pattern of paths; its groups are the arguments."""

    def register(function: Callable) -> Callable:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


class Handler(BaseHTTPRequestHandler):
    """Dispatcher of requests to routes."""

    protocol_version = "HTTP/1.1"
    hub: "LocalHub"
    is_file_cut = False

    def log_message(self, *arguments: Any) -> None:
        pass

    def reply(self, status: int = 200, content: Any = None, headers: dict[str, Any] | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "Content-Length": len(body), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def read_json(self) -> dict[str, Any]:
        body = self.read_body()
        return json.loads(body) if body else {}

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.store = self.hub.store
        self.hub.requests.append((self.command, url.path))
        method = "GET" if self.command == "HEAD" else self.command
        try:
            fault = self.hub.next_fault(url.path)
            is_file = method == "GET" and "/resolve/" in url.path
            self.is_file_cut = fault is not None and fault.how == "cut" and is_file
            if fault and not self.is_file_cut:
                return self.break_down(fault)
            for known, pattern, function in ROUTES:
                if known == method and (match := pattern.fullmatch(url.path)):
                    groups = {name: value and unquote(value) for name, value in match.groupdict().items()}
                    self.check_access(**groups)
                    return function(self, **groups)
            self.read_body()
            raise HubError(404, None, f"not implemented: {self.command} {url.path}")
        except HubError as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            self.reply(error.status, {"error": error.message}, headers)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def check_access(self, kind: str | None = "model", repo: str | None = None, **others: Any) -> None:
        if repo and not self.headers.get("Authorization") and self.store.load(kind or "model", repo)["private"]:
            raise HubError(401, "RepoNotFound", "Repository not found")

    def break_down(self, fault: "Fault") -> None:
        if isinstance(fault.how, int):
            self.read_body()
            raise HubError(fault.how, None, fault.message)
        if fault.how == "hold":
            self.hub.is_held.set()
            self.hub.is_over.wait()
        else:  # cut in the middle of the request
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


@route("GET", r"/api/whoami-v2")
def whoami(request: Handler) -> None:
    token = {"displayName": "test", "role": "write", "createdAt": _now()}
    request.reply(
        content={
            "type": "user", "id": "1", "name": USER, "fullname": USER, "orgs": [], "isPro": False, "canPay": False,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )  # fmt: skip


def _requested_repo(request: Handler) -> tuple[str, str, dict[str, Any]]:
    body = request.read_json()
    return body.get("type") or "model", f"{body.get('organization') or USER}/{body['name']}", body


@route("POST", r"/api/repos/create")
def create_repo(request: Handler) -> None:
    kind, repo, body = _requested_repo(request)
    answer = {"url": request.hub.url(kind, repo), "name": repo, "id": "1"}
    with request.store.lock:
        if request.store.path(kind, repo).exists():
            return request.reply(409, {"error": "You already created this repo", **answer})
        is_private = bool(body.get("private")) or body.get("visibility") == "private"
        content = {"private": is_private, "sdk": body.get("sdk"), "created": _now()}
        content |= {"refs": {}, "tags": {}, "commits": {}}
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        files = {".gitattributes": request.store.put_file(attributes.encode())}
        request.store.commit(content, "main", files, "initial commit")
        request.store.save(kind, repo, content)
    request.reply(content=answer)


@route("POST", r"/_mend")
def mend(request: Handler) -> None:
    """End all faults, on request of a client."""
    request.read_body()
    request.hub.mend()
    request.reply()


@route("POST", r"/api/validate-yaml")
def validate_yaml(request: Handler) -> None:
    match, errors = FRONT_MATTER.match(request.read_json().get("content", "")), []
    try:
        if match and not isinstance(yaml.safe_load(match[1]), dict):
            errors = [{"message": "the metadata is not a mapping"}]
    except yaml.YAMLError as error:
        errors = [{"message": str(error)}]
    request.reply(400 if errors else 200, {"errors": errors, "warnings": []})


@route("POST", rf"/api/{KIND}/{REPO}/preupload/(?P<revision>[^/]+)")
def preupload(request: Handler, kind: str, repo: str, revision: str) -> None:
    content, answers = request.store.load(kind, repo), []
    commit, files = request.store.files(content, revision)
    for file in request.read_json()["files"]:
        is_binary = b"\0" in base64.b64decode(file.get("sample") or "")
        is_large = file["size"] > LFS_BYTES or file["path"].endswith(LFS_SUFFIXES) or is_binary
        earlier = files.get(file["path"])
        oid = earlier and (earlier["sha"] if earlier["lfs"] else earlier["oid"])
        mode = "lfs" if is_large else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    request.reply(content={"files": answers, "commitOid": commit})


@route("POST", rf"/(?:(?P<kind>dataset|space)s/)?{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(request: Handler, kind: str | None, repo: str) -> None:
    request.store.load(kind or "model", repo)
    answers = []
    for wanted in request.read_json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if not request.store.blob(wanted["oid"]).exists():
            url = f"{request.hub.endpoint}/_lfs/{wanted['oid']}"
            answer["actions"] = {"upload": {"href": url, "header": {}}, "verify": {"href": f"{url}/verify"}}
        answers.append(answer)
    headers = {"Content-Type": "application/vnd.git-lfs+json"}
    request.reply(content={"transfer": "basic", "objects": answers}, headers=headers)


@route("PUT", r"/_lfs/(?P<sha>[0-9a-f]{64})")
def lfs_put(request: Handler, sha: str) -> None:
    data = request.read_body()
    if hashlib.sha256(data).hexdigest() != sha:
        raise HubError(400, "BadDigest", f"the content is not that of {sha}")
    request.store.put(data)
    request.reply()


@route("POST", r"/_lfs/(?P<sha>[0-9a-f]{64})/verify")
def lfs_verify(request: Handler, sha: str) -> None:
    size, path = request.read_json()["size"], request.store.blob(sha)
    if not path.exists() or path.stat().st_size != size:
        raise HubError(404, "NotUploaded", f"{sha} was not uploaded")
    request.reply(content={})


@route("POST", rf"/api/{KIND}/{REPO}/commit/(?P<revision>[^/]+)")
def commit(request: Handler, kind: str, repo: str, revision: str) -> None:
    operations = [json.loads(line) for line in request.read_body().splitlines() if line.strip()]
    with request.store.lock:
        content = request.store.load(kind, repo)
        earlier, files = request.store.files(content, revision)
        files, header = dict(files), {}
        for operation in operations:
            if operation["key"] == "header":
                header = operation["value"]
                if not earlier.startswith(header.get("parentCommit") or ""):
                    raise HubError(412, None, "A commit has happened since. Please refresh and try again.")
            else:
                _apply(request.store, files, operation["key"], operation["value"])
        answer, branch = {"success": True, "hookOutput": ""}, revision
        if request.query.get("create_pr") == "1":
            number = 1 + sum(name.startswith("refs/pr/") for name in content["refs"])
            branch = f"refs/pr/{number}"
            content["refs"][branch] = earlier
            answer["pullRequestUrl"] = f"{request.hub.url(kind, repo)}/discussions/{number}"
        oid = request.store.commit(content, branch, files, header.get("summary", ""), header.get("description", ""))
        request.store.save(kind, repo, content)
    url = f"{request.hub.url(kind, repo)}/commit/{oid}"
    request.reply(content={**answer, "commitOid": oid, "commitUrl": url})


def _apply(store: Store, files: dict[str, dict], key: str, value: dict[str, Any]) -> None:
    """Apply one operation of a commit."""
    path = value["path"]
    if key == "file":
        is_encoded = value.get("encoding") == "base64"
        files[path] = store.put_file(base64.b64decode(value["content"]) if is_encoded else value["content"].encode())
    elif key == "lfsFile":
        if not store.blob(value["oid"]).exists():
            raise HubError(400, "LfsMissing", f"{path}: {value['oid']} was not uploaded")
        size = store.blob(value["oid"]).stat().st_size
        oid = _git_oid(_pointer(value["oid"], size))
        files[path] = {"oid": oid, "size": size, "sha": value["oid"], "lfs": True}
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise HubError(404, "EntryNotFound", f"{path} does not exist")
    else:
        raise HubError(400, None, f"unknown operation {key}")


@route("POST", rf"/api/{KIND}/{REPO}/(?P<what>branch|tag)/(?P<name>.+)")
def create_reference(request: Handler, kind: str, repo: str, what: str, name: str) -> None:
    with request.store.lock:
        content, body = request.store.load(kind, repo), request.read_json()
        if what == "branch":
            where, start = content["refs"], body.get("startingPoint") or "main"
        else:
            where, name, start = content["tags"], body["tag"], name
        if name in where:
            raise HubError(409, None, f"{what} {name} already exists")
        where[name] = request.store.files(content, start)[0]
        request.store.save(kind, repo, content)
    request.reply(content={})


@route("GET", rf"/api/{KIND}/{REPO}/refs")
def references(request: Handler, kind: str, repo: str) -> None:
    content = request.store.load(kind, repo)

    def named(what: str, commits: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{what}/{name}", "targetCommit": oid} for name, oid in commits.items()]

    answer = {"branches": named("heads", content["refs"]), "tags": named("tags", content["tags"])}
    request.reply(content={**answer, "converts": [], "pullRequests": []})


@route("GET", rf"/api/{KIND}/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?")
def tree(request: Handler, kind: str, repo: str, revision: str, path: str | None) -> None:
    _, files = request.store.files(request.store.load(kind, repo), revision)
    prefix = f"{path.rstrip('/')}/" if path else ""
    is_recursive = request.query.get("recursive", "").lower() in ("true", "1")
    entries: dict[str, dict] = {}
    for name in sorted(name for name in files if name.startswith(prefix)):
        parts = name[len(prefix) :].split("/")
        for depth in range(1, len(parts) if is_recursive else min(2, len(parts))):
            folder = prefix + "/".join(parts[:depth])
            entries.setdefault(folder, _folder_entry(folder))
        if is_recursive or len(parts) == 1:
            entries[name] = _entry(name, files[name])
    if path and not entries:
        raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}")
    request.reply(content=list(entries.values()))


@route("POST", rf"/api/{KIND}/{REPO}/paths-info/(?P<revision>[^/]+)")
def paths_info(request: Handler, kind: str, repo: str, revision: str) -> None:
    body = request.read_body()
    is_json = "json" in request.headers.get("Content-Type", "")
    paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
    _, files = request.store.files(request.store.load(kind, repo), revision)
    entries = []
    for path in [paths] if isinstance(paths, str) else paths:
        if path in files:
            entries.append(_entry(path, files[path]))
        elif any(name.startswith(f"{path.rstrip('/')}/") for name in files):
            entries.append(_folder_entry(path))
    request.reply(content=entries)


@route("GET", rf"/api/{KIND}/{REPO}(?:/revision/(?P<revision>.+))?")
def info(request: Handler, kind: str, repo: str, revision: str | None) -> None:
    content = request.store.load(kind, repo)
    oid, files = request.store.files(content, revision or "main")
    card = request.store.card_data(files)
    answer = {
        "_id": "1", "id": repo, "author": repo.split("/")[0], "sha": oid, "private": content["private"],
        "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0, "createdAt": content["created"],
        "lastModified": content["commits"][oid]["date"], "cardData": card, "sdk": content["sdk"],
        "siblings": [{"rfilename": path} for path in files],
    }  # fmt: skip
    if kind == "model":
        answer |= {name: card[name] for name in ("pipeline_tag", "library_name") if card and card.get(name)}
        if "config.json" in files:
            config = json.loads(request.store.blob(files["config.json"]["sha"]).read_bytes())
            known = ("architectures", "model_type", "auto_map")
            answer |= {"modelId": repo, "config": {name: config[name] for name in known if name in config}}
    request.reply(content=answer)


@route("GET", rf"/(?:(?P<kind>dataset|space)s/)?{REPO}/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request: Handler, kind: str | None, repo: str, revision: str, path: str) -> None:
    oid, files = request.store.files(request.store.load(kind or "model", repo), revision)
    if path not in files:
        raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}")
    file = files[path]
    etag = file["sha"] if file["lfs"] else file["oid"]
    headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes", "ETag": f'"{etag}"'}
    if file["lfs"]:
        headers |= {"X-Linked-Size": file["size"], "X-Linked-Etag": f'"{etag}"'}
    _send_file(request, request.store.blob(file["sha"]), headers)


def _send_file(request: Handler, path: Path, headers: dict[str, Any]) -> None:
    data = path.read_bytes()
    status, start, end = 200, 0, len(data)
    if match := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", "")):
        first, last = match.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(len(data), int(last) + 1) if first and last else len(data)
        if start >= end:
            return request.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
        status, headers = 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    request.send_response(status)
    for name, value in {**headers, "Content-Type": "application/octet-stream", "Content-Length": end - start}.items():
        request.send_header(name, str(value))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[start : min(end, CUT_AT) if request.is_file_cut else end])
        if request.is_file_cut and end > CUT_AT:
            request.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError


@dataclass
class Fault:
    """Fault of the requests whose path matches a pattern."""

    pattern: re.Pattern
    how: int | str
    times: int | None
    message: str


class LocalHub:
    """
    Local Hub, as a context manager.

    Attributes:
        endpoint: URL.
        requests: (method, path) of all requests.
        is_held: set when a request meets the fault "hold".
    """

    def __init__(self, root: str | os.PathLike):
        self.store = Store(root)
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock, self.is_held, self.is_over = threading.Lock(), threading.Event(), threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fail(self, pattern: str, how: int | str, times: int | None = None, message: str = "out of order") -> None:
        """
        Simulate a fault of the requests whose path matches `pattern`, all or the first `times`.

        Args:
            how: a status; "cut", the connection breaks in the middle of the body; or "hold", there is no response, and
                `is_held` is set.
        """
        self.faults.append(Fault(re.compile(pattern), how, times, message))

    def mend(self) -> None:
        """End all faults."""
        self.faults.clear()

    def next_fault(self, path: str) -> Fault | None:
        """Return the fault of a request, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.times != 0 and fault.pattern.search(path):
                    fault.times = fault.times and fault.times - 1
                    return fault
        return None

    def head(self, kind: str, repo: str, branch: str = "main") -> tuple[str, dict[str, dict]]:
        """Return (commit, {path: file}) of a branch."""
        return self.store.files(self.store.load(kind, repo), branch)

    def content(self, kind: str, repo: str, path: str, revision: str = "main") -> bytes:
        """Return the content of a file."""
        _, files = self.store.files(self.store.load(kind, repo), revision)
        return self.store.blob(files[path]["sha"]).read_bytes()

    def url(self, kind: str, repo: str) -> str:
        return f"{self.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{repo}"

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that uses only this Hub and a cache of its own."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.store.root / "client"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_test",
            "OMP_NUM_THREADS": "1",
        }

    def __enter__(self) -> "LocalHub":
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self.is_over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
