"""What people send by mistake or on purpose: always a sentence, never a file, and the server lives."""

import base64
import io
import json
import struct
import tempfile
import threading
import zlib
from http.client import HTTPConnection
from socket import create_connection

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from showtell.serve import server
from showtell.serve.reading import shown_name
from tests.fake_model import picture, png
from tests.serve.serving import GatedEngine, client, encoded, fake_captioner, noise, running, until
from tests.serve.test_api import as_json, check_problem, form

HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def api():
    with client(max_pixels=1_000_000, max_bytes=2_000_000, max_images=4) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_written(monkeypatch):
    """A temporary file that is made, or a file that is opened for writing, fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a file is written")

    rollover = tempfile.SpooledTemporaryFile.rollover
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    yield
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)


def send(api, content: bytes, name: str = "photo.jpg", kind: str = "image/jpeg"):
    return api.post("/v1/captions", files=[("images", (name, content, kind))])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


JPEG = encoded(noise(1, 64), "JPEG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><image href="file:///etc/passwd"/></svg>'
BAD = {
    "empty": b"",
    "truncated JPEG": JPEG[: len(JPEG) // 2],
    "truncated PNG": png("red")[:40],
    "damaged PNG": png("red")[:40] + b"xxxx" + png("red")[44:],
    "SVG": SVG,
    "EPS, which Pillow would run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
    "PDF": b"%PDF-1.7\n1 0 obj<<>>endobj",
    "HTML": b"<!doctype html><img src=x onerror=alert(1)>",
    "ZIP": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n(S'id'\ntR.",
    "NumPy": b"\x93NUMPY\x01\x00",
    "text": b"hello",
    "zeros": bytes(10_000),
    "bomb of pixels": png_of(60_000, 60_000, zlib.compress(bytes(100_000), 9)),
    "more pixels than allowed": encoded(np.zeros((1001, 1000, 3), np.uint8)),
    "bomb of a chunk": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9)),
    "header of nothing": b"\xff\xd8\xff\xe0",
    "GIF of no size": b"GIF89a\x00\x00\x00\x00\x00\x00\x00;",
    "HEIC without its pictures": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "TIFF that points to itself": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
}  # fmt: skip


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_a_sentence(api, content):
    problem = check_problem(send(api, content), 422, "photo.jpg")
    assert len(problem["detail"]) < 300
    assert api.get("/readyz").status_code == 200


GOOD = {
    "mislabelled": png("red"),
    "strip, wide": encoded(np.zeros((1, 10_000, 3), np.uint8) + np.uint8([200, 0, 0])),
    "strip, tall": encoded(np.zeros((10_000, 1, 3), np.uint8) + np.uint8([200, 0, 0])),
    "one pixel": encoded(picture("red", 1)),
    "polyglot: a picture and a page": png("red") + b"<script>alert(1)</script>",
    "polyglot: a picture and an archive": png("red") + b"PK\x03\x04" + bytes(60),
    "animation": encoded(picture("red"), "GIF", save_all=True, append_images=[picture("lime")] * 3),
    "grey with alpha": encoded(Image.new("LA", (9, 9), (128, 0))),
    "JPEG of more pixels than allowed": encoded(np.zeros((1001, 1000, 3), np.uint8), "JPEG"),
    "PNG with a large profile": png("red")[:33]
    + chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(80_000_000), 9))
    + png("red")[33:],
    "16 bits": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16))),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_an_odd_picture_is_a_picture(api, content):
    assert send(api, content).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "a\r\nSet-Cookie: x", "\x00.jpg", "." * 300, "", "é" * 999],
)
def test_a_file_name_is_a_name_and_no_path(api, name):
    shown = check_problem(api.post("/v1/captions", json={"images": [{"data": "aGk=", "name": name}]}), 422)["detail"]
    assert "/" not in shown.partition(" is not")[0]
    assert "\\" not in shown
    assert "etc" not in shown
    assert shown.isprintable()
    assert len(shown) < 300


@given(st.text(max_size=400))
def test_any_name_can_be_shown(name):
    shown = shown_name(name, 0)
    assert shown.isprintable()
    assert 1 <= len(shown) <= 100
    assert not set(shown) & set("/\\")


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (None, b"", 415),
        ("text/plain", b"hello", 415),
        ("image/jpeg", JPEG, 415),
        ("application/x-www-form-urlencoded", b"images=1", 415),
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"\xff\xfe", 400),
        ("application/json", b"null", 422),
        ("application/json", b"[]", 422),
        ("application/json", b'{"images": 1}', 422),
        ("application/json", b'{"images": [{"data": 1}]}', 422),
        ("application/json", b'{"images": [{"data": "aGk="}], "temperature": NaN}', 422),
        ("application/json", b"[" * 100_000, 400),
        ("application/json; charset=utf-16", b"{}", 422),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=", b"--\r\n", 422),
        ("multipart/form-data; boundary=x", b"", 422),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("multipart/form-data; boundary=x", b"nothing of the kind", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="images"; file', 422),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x", None),  # older form readers find no image in it
        ("multipart/form-data; boundary=x; charset=nonsense", b"--x--\r\n", 422),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_body_is_a_sentence(api, kind, body, status):
    headers = {"Content-Type": kind} if kind else {}
    answer = api.post("/v1/captions", content=body, headers=headers)
    check_problem(answer, status or (400 if answer.status_code == 400 else 422))


def test_what_is_too_much_is_refused(api):
    check_problem(send(api, bytes(2_000_001)), 413, "1.91 MiB")
    check_problem(api.post("/v1/captions", files=form(*["red"] * 5)), 413, "4")
    check_problem(api.post("/v1/captions", json=as_json(*["red"] * 5)), 413, "4")
    many = {f"field{n}": "x" for n in range(400)}
    check_problem(api.post("/v1/captions", data=many, files=form("red")), 400, "Too many fields")
    check_problem(api.post("/v1/captions", data={"prefix": "x" * 100_000}, files=form("red")), 400, "64KB")


def test_a_body_without_a_length_is_bounded_too(api):
    def endless():
        for _ in range(100):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    check_problem(api.post("/v1/captions", content=endless(), headers=headers), 413)
    assert api.app.state.service.room.held == 0


def test_all_bodies_together_are_bounded():
    with client(held_bytes=50_000) as api:
        answer = send(api, bytes(60_000))
        check_problem(answer, 429, "uploads")
        assert answer.headers["retry-after"] == "1"
        assert send(api, png("red")).status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pictures_are_pictures_or_sentences(api, data):
    """Bytes of real files, changed at random."""
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "ICO", "PPM"]))
    content = bytearray(encoded(noise(2, 16), kind))
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    answer = send(api, bytes(content))
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        check_problem(answer, 422, "photo.jpg")


def test_a_client_that_sends_slowly_is_let_go():
    with running(timeout=0.5) as port:
        with create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(HEAD % 99 + b"{")
            slow.settimeout(10)
            answer = b"".join(iter(lambda: slow.recv(10_000), b""))  # head and body may come apart
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"did not arrive within 0.5 s" in answer
        assert ask(port)["images"]


def test_a_client_that_says_nothing_is_let_go(monkeypatch):
    """Neither silence nor half a line keeps a connection; a second request on one is no exception."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with running() as port:
        for said in (b"", b"POST /v1/capt", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea"):
            with create_connection(("127.0.0.1", port)) as silent:
                silent.sendall(said)
                silent.settimeout(10)
                while silent.recv(10_000):
                    pass
        monkeypatch.undo()
        assert ask(port)["images"]


def test_a_client_that_leaves_takes_its_images_along():
    captioner = fake_captioner(GatedEngine)
    with running(captioner) as port:
        busy = threading.Thread(target=ask, args=(port,))
        busy.start()
        assert captioner.engine.entered.wait(20)
        body = json.dumps(as_json("red", "red")).encode()
        with create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(HEAD % len(body) + body)
            until(lambda: waiting(port) == 2)
        until(lambda: 'path="/v1/captions",status="400"' in metrics(port))  # the server has noticed
        captioner.engine.gate.set()
        busy.join(20)
        until(lambda: waiting(port) == 0)
        assert ask(port)["images"]
        assert captioner.engine.batches == [1, 1]


def waiting(port: int) -> float:
    """Images in the queue."""
    return float(metrics(port).partition('showtell_queue_images{model="fake"} ')[2].split()[0])


def metrics(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def ask(port: int) -> dict:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"images": [{"data": base64.b64encode(png("red")).decode()}]})
    connection.request("POST", "/v1/captions", body, {"Content-Type": "application/json"})
    answer = json.load(io.BytesIO(connection.getresponse().read()))
    connection.close()
    return answer
