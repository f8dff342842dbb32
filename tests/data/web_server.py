"""A web server on 127.0.0.1 that misbehaves as told: one behaviour an answer, the last one for all that follow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one request is answered; by default as a good server does, ranges and all."""

    content: bytes = b""
    etag: str | None = '"one"'
    status: int = 200  # another one is answered alone
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None  # bytes of the body, then the connection breaks off
    ignore_range: bool = False
    ignore_if_range: bool = False
    length: int | None = None  # what Content-Length says instead of the truth
    no_length: bool = False
    force_range: int | None = None  # the first byte of a range that is answered, asked for or not


class Server(ThreadingHTTPServer):
    """Remembers what was asked for; daemon threads, so that a hanging one ends with the test."""

    behaviours: dict[str, list[Behaviour]]
    requests: list[tuple[str, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        behaviours = self.server.behaviours.get(self.path, [Behaviour(status=404)])
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        if behaviour.status != 200:
            self.send_response(behaviour.status)
            self._end(behaviour.headers | {"Content-Length": "0"})
            return
        headers = {"ETag": behaviour.etag} if behaviour.etag else {}
        body, wanted = behaviour.content, self.headers.get("Range")
        if behaviour.force_range is not None:
            wanted = f"bytes={behaviour.force_range}-"
        same = (
            behaviour.force_range is not None
            or behaviour.ignore_if_range
            or self.headers.get("If-Range") == behaviour.etag
        )
        if wanted and same and not behaviour.ignore_range:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(body):
                self.send_response(416)
                self._end({"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            body = body[first:]
            self.send_response(206)
        else:
            self.send_response(200)
        if not behaviour.no_length:
            headers["Content-Length"] = str(len(body) if behaviour.length is None else behaviour.length)
        self._end(headers | behaviour.headers)
        self.wfile.write(body[: behaviour.drop_after])
        self.close_connection = True

    def _end(self, headers: dict[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def web_server(behaviours: dict[str, list[Behaviour]]) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.behaviours, server.requests = behaviours, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
