"""URLs: fetched only if the server was started to, and never from addresses that are not public."""

import http.server
import socket
import threading
import time

import pytest

from showtell.errors import ImageError
from showtell.images import urls as fetch_module
from showtell.images.urls import fetch, is_public
from tests.fake_model import png
from tests.serve.serving import RED, client


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((path, self.headers["Host"]))
        redirects = {"/inside": "http://inside.example/red.png", "/loop": "/loop", "/moved": "/red.png",
                     "/file": "file:///etc/passwd"}  # fmt: skip
        if path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[path])
            self.end_headers()
        elif path == "/red.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png("red"))
        elif path == "/slow-head":
            for _ in range(40):
                self.wfile.write(b"H")
                time.sleep(0.1)
        elif path in ("/large", "/slow"):
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(bytes(10_000))
                time.sleep(0.1 if path == "/slow" else 0)
        else:
            self.send_error(404)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def site(monkeypatch):
    """A site named outside.example, at an address of this machine that counts as public; inside.example does not."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.handle_error = lambda *_: None  # clients that leave early are what is tested
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = {
        "outside.example": ["127.0.0.1"],
        "inside.example": ["127.0.0.2"],
        "both.example": ["127.0.0.1", "10.0.0.1"],
    }

    def resolve(host, *_, **__):
        if host not in names:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in names[host]]

    monkeypatch.setattr(fetch_module.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetch_module, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setitem(fetch_module.PORTS, "http", server.server_port)
    connect = socket.socket.connect

    def direct(address, timeout):
        found = socket.socket()
        found.settimeout(timeout)
        connect(found, address)
        return found

    monkeypatch.setattr(fetch_module.socket, "create_connection", direct)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/red.png", "/moved"])
def test_a_url_is_fetched_and_redirects_are_followed(site, path):
    assert fetch(f"http://outside.example{path}", 10_000) == png("red")
    assert site.asked[-1] == ("/red.png", f"outside.example:{site.server_port}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://inside.example/red.png", "not public"),
        ("http://both.example/red.png", "not public"),
        ("http://outside.example/inside", "not public"),
        ("http://outside.example/loop", "redirects"),
        ("http://outside.example/file", "not a URL that showtell fetches"),
        ("http://outside.example/none", "answers 404"),
        ("http://outside.example/large", "larger than"),
        ("http://unknown.example/", "no host"),
        ("http://user:password@outside.example/red.png", "without a user name"),
        ("http://outside.example:22/", "port"),
        ("http://outside.example:x/", "not a URL"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://outside.example/", "http:// or https://"),
        ("http:///red.png", "http:// or https://"),
        ("http://[::1/", "not a URL"),
        ("red.png", "http:// or https://"),
    ],
)
def test_other_urls_are_refused_with_a_sentence(site, url, words):
    with pytest.raises(ImageError, match=words):
        fetch(url, 100_000)


@pytest.mark.parametrize("path", ["/slow", "/slow-head"])
def test_a_site_that_sends_slowly_is_given_up(site, monkeypatch, path):
    monkeypatch.setattr(fetch_module, "SECONDS", 0.5)
    begin = time.monotonic()
    with pytest.raises(ImageError, match=r"within 0\.5 s"):
        fetch(f"http://outside.example{path}", 10_000_000)
    assert time.monotonic() - begin < 3


PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0"),
    *("fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    *("::7f00:1", "2001:db8::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"]
)
def test_this_machine_is_never_asked(host):
    """Its name and its address, however it is written, resolve to what is refused."""
    with pytest.raises(ImageError, match=r"not public|no host|not a URL"):
        fetch(f"http://{host}/", 1000)


def test_a_server_that_fetches_captions_what_it_fetched(site):
    with client(fetch_urls=True) as api:
        images = [{"url": "http://outside.example/red.png?size=2"}, {"url": "http://inside.example/red.png"}]
        answer = api.post("/v1/captions", json={"images": images}).json()
        assert answer["images"][0]["name"] == "red.png"
        assert answer["images"][0]["captions"][0]["text"] == RED
        assert "not public" in answer["images"][1]["problem"]["detail"]
        assert api.get("/v1/models").json()["limits"]["fetch_urls"] is True
