"""The few routes of the Hugging Face Hub that fetching and pushing a model use, on 127.0.0.1."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".onnx", ".bin")  # stored as LFS files there


class FakeHub(ThreadingHTTPServer):
    """Repositories as lists of commits, each a mapping from file names to contents."""

    commits: dict[str, list[dict[str, bytes]]]
    requests: list[str]
    uploads: dict[str, bytes]
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    private: dict[str, bool]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, repo: str, number: int = -1) -> str:
        number = number % len(self.commits[repo])
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        names = {self.sha(repo, number): number for number in range(len(self.commits[repo]))}
        number = names.get(revision, -1 if revision in ("main", "refs/pr/4") else None)
        return None if number is None else self.commits[repo][number]


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return  # who sent it was killed
        self.server.requests.append(f"{self.command} {path}")
        if self.server.refusal:
            status, code = self.server.refusal
            self.answer({"error": "no"}, status, X_Error_Code=code, X_Error_Message="no")
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            said = json.loads(body)
            repo = f"{said['organization']}/{said['name']}" if "organization" in said else said["name"]
            self.server.commits.setdefault(repo, [{}])
            self.server.private.setdefault(repo, bool(said.get("private")) or said.get("visibility") == "private")
            self.answer({"url": f"{self.server.url}/{repo}", "name": repo, "id": repo})
        elif path.startswith("/api/models/"):
            org, name, *rest = path.removeprefix("/api/models/").split("/")
            self.model(f"{org}/{name}", rest, body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            href = {o["oid"]: {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}} for o in objects}
            self.answer({"transfer": "basic", "objects": [{**o, "actions": href[o["oid"]]} for o in objects]})
        elif path.startswith("/lfs/"):
            self.server.uploads[path.removeprefix("/lfs/")] = body
            self.answer({})
        elif path.startswith("/api/"):  # what else the library asks for
            self.answer({"error": "no"}, 404)
        else:
            org, name, _, revision, file = path.removeprefix("/").split("/", 4)
            self.file(f"{org}/{name}", revision, file)

    def model(self, repo: str, rest: list[str], body: bytes) -> None:
        if repo not in self.server.commits:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        kind, revision = (rest[0], "/".join(rest[1:]) or "main") if rest else ("revision", "main")
        files = self.server.files(repo, revision)
        if files is None:
            self.answer({"error": "Invalid rev"}, 404, X_Error_Code="RevisionNotFound")
        elif kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            number = next(n for n, commit in enumerate(self.server.commits[repo]) if commit is files)
            self.answer({"id": repo, "modelId": repo, "sha": self.server.sha(repo, number), "siblings": siblings,
                         "tags": [], "downloads": 0, "likes": 0, "private": False})  # fmt: skip
        elif kind == "tree":
            self.answer([{"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                         for name, content in files.items()])  # fmt: skip
        elif kind == "preupload":
            asked = json.loads(body)["files"]
            self.answer({"files": [{"path": file["path"], "shouldIgnore": False, "oid": None,
                                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                                   for file in asked]})  # fmt: skip
        elif kind == "commit":
            files = dict(files)
            for line in filter(None, body.split(b"\n")):
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    files[value["path"]] = self.server.uploads[value["oid"]]
                elif operation["key"] == "deletedFile":
                    del files[value["path"]]
            self.server.commits[repo].append(files)
            sha = self.server.sha(repo)
            self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def file(self, repo: str, revision: str, name: str) -> None:
        content = (self.server.files(repo, revision) or {})[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.answer(content, X_Repo_Commit=revision, ETag=etag)

    do_GET = do_HEAD = do_POST = do_PUT = route

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def fake_hub(
    commits: dict[str, list[dict[str, bytes]]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """The hub that this process, which has a token, talks to; what it fetches goes to `cache`."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra 'hub' is not installed")
    server = FakeHub(("127.0.0.1", 0), Handler)
    server.commits, server.requests, server.uploads, server.private = commits, [], {}, {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
