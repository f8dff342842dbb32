"""Files and requests that are damaged at random: each ends in a sentence and an exit code that says so.

    pytest tests/test_fuzz.py                           # the same few examples each time
    SHOWTELL_FUZZ=100000 pytest tests/test_fuzz.py      # so many of each kind, other ones each time

A damaged input may still be good, so success is no failure here: a traceback is, or a hang, or another exit code.
"""

import csv
import faulthandler
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import showtell
from showtell.cli import main
from showtell.errors import ShowtellError
from showtell.images.decode import read_image
from showtell.training.recipe import load_recipe
from tests.fake_model import picture
from tests.serve.serving import client
from tests.tiny_model import save_tiny_model
from tests.training.test_trainer import TINY

EXAMPLES = int(os.environ.get("SHOWTELL_FUZZ", "0"))
HANGS = 60  # seconds
fuzzed = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

ODD = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    float("nan"),
    "",
    " ",
    "\0",
    "\ud800",
    "a" * 5000,
    "../x",
    [],
    [[]],
    {},
    {"": 0},
]
PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"\r\n",
    b'"',
    b",",
    b"{",
    b"]",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"NaN",
    b"1e999",
    b"\x80" * 8,
]


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Some places of the content replaced, cut out or repeated; or only its beginning."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(damaged)))
        end = begin + draw(st.sampled_from([0, 1, 2, 4, 16, len(damaged)]))
        damaged[begin:end] = draw(st.sampled_from(PIECES) | st.binary(max_size=8) | st.just(bytes(damaged[:begin])))
    return bytes(damaged)


def places(value: object, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Of every part of a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


@st.composite
def odd_json(draw: st.DrawFn, content: bytes) -> bytes:
    """The JSON with some parts replaced by others of all kinds, or left out."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([path for path in places(value) if path] or [("",)]))
        part = value
        for step in way:
            part = part[step]
        if isinstance(part, dict) and last in part and draw(st.booleans()):
            del part[last]
        elif part:
            part[last] = deepcopy(draw(st.sampled_from(ODD)))
    return json.dumps(value).encode()


@contextmanager
def no_hang() -> Iterator[None]:
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def check(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> None:
    """Run a command in this process."""
    with no_hang():
        code = main([str(argument) for argument in arguments])
    said = capfd.readouterr()
    assert code in (0, 1, 2), said.err
    assert "bug in showtell" not in said.err
    assert "Traceback" not in said.err
    assert code == 0 or said.err.strip() or said.out.strip(), "it fails without a word"


# -------------------------------------------------------------------- images


def saved(form: str, **options: object) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, form, **options)
    return file.getvalue()


IMAGES = {
    "jpeg": saved("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "progressive": saved("JPEG", progressive=True),
    "png": saved("PNG"),
    "gif": saved("GIF"),
    "webp": saved("WEBP"),
    "tiff": saved("TIFF"),
    "bmp": saved("BMP"),
}


@pytest.mark.parametrize("form", IMAGES)
@fuzzed
@given(data=st.data())
def test_images(form: str, data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / f"photo.{form}"
    file.write_bytes(data.draw(damage(IMAGES[form])))
    with no_hang(), suppress(ShowtellError):
        assert read_image(file).shape[2:] == (3,)


# ------------------------------------------------- captions, tables, results


def as_csv(rows: list[dict[str, str]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["image", "caption", "split"])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


ROWS = [
    {"image": f"{n}.png", "caption": f"a {colour} ball, on sand", "split": split}
    for n, (colour, split) in enumerate([("red", "train"), ("blue", "train"), ("green", "dev"), ("grey", "test")])
]
COCO = {
    "images": [{"id": n, "file_name": row["image"]} for n, row in enumerate(ROWS)],
    "annotations": [{"id": n, "image_id": n, "caption": row["caption"]} for n, row in enumerate(ROWS)],
}
KARPATHY = {
    "images": [
        {"filename": row["image"], "filepath": "", "imgid": n, "split": row["split"], "sentences": [{"raw": "a b"}]}
        for n, row in enumerate(ROWS)
    ]
}
LINES = "\n".join(map(json.dumps, ROWS)).encode()
RESULTS = json.dumps([{"image_id": n, "caption": row["caption"]} for n, row in enumerate(ROWS)]).encode()
TEXTS = {
    "table.csv": (as_csv(ROWS), "table:{}"),
    "table.jsonl": (LINES, "table:{}"),
    "coco.json": (json.dumps(COCO).encode(), "coco:{}"),
    "karpathy.json": (json.dumps(KARPATHY).encode(), "karpathy:{},{folder}"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for row in ROWS:
        picture("red").save(tmp_path / row["image"])
    return tmp_path


def maybe_odd(content: bytes, *, is_json: bool) -> st.SearchStrategy[bytes]:
    return damage(content) | odd_json(content) if is_json else damage(content)


@pytest.mark.parametrize("name", TEXTS)
@fuzzed
@given(data=st.data())
def test_captions(name: str, data: st.DataObject, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, spec = TEXTS[name]
    (photos / name).write_bytes(data.draw(maybe_odd(content, is_json=name.endswith(".json"))))
    check(capfd, "data", "info", spec.format(photos / name, folder=photos))


@pytest.mark.parametrize("damaged", ["results", "references"])
@fuzzed
@given(data=st.data())
def test_results(damaged: str, data: st.DataObject, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    contents = {"results": RESULTS, "references": json.dumps(COCO).encode()}
    contents[damaged] = data.draw(maybe_odd(contents[damaged], is_json=True))
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_bytes(content)
    files = [tmp_path / f"{name}.json" for name in contents]
    check(capfd, "score", *files, "--metric", "BLEU", "--metric", "CIDEr")


# ------------------------------------------------------------ recipes, models


@fuzzed
@given(data=st.data())
def test_recipes(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data.draw(damage(TINY.encode())))
    with no_hang(), suppress(ShowtellError):
        load_recipe(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", attention=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@fuzzed
@given(data=st.data())
def test_models(name: str, data: st.DataObject, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder, dirs_exist_ok=True)
    content = (model / name).read_bytes()
    if name == "model.safetensors":  # the header: what follows are numbers, and any will do
        size = 8 + int.from_bytes(content[:8], "little")
        content = data.draw(damage(content[:size])) + content[size:]
    else:
        content = data.draw(maybe_odd(content, is_json=True))
    (folder / name).write_bytes(content)
    check(capfd, "models", folder)
    with no_hang(), suppress(ShowtellError):
        showtell.load(folder)(picture("red", 64))


# ------------------------------------------------------------------- requests


@pytest.fixture(scope="module")
def api() -> Iterator[object]:
    with client(max_pixels=1_000_000, max_bytes=2_000_000, max_images=4) as opened:
        yield opened


JSON_REQUEST = json.dumps({"images": [{"id": "a", "base64": "iVBORw0KGgo="}], "num": 2, "beam": 3}).encode()
FORM_REQUEST = (
    b'--xx\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + IMAGES["png"]
    + b'\r\n--xx\r\nContent-Disposition: form-data; name="num"\r\n\r\n2\r\n--xx--\r\n'
)


@pytest.mark.parametrize(
    ("kind", "request_of"),
    [
        ("application/json", lambda: maybe_odd(JSON_REQUEST, is_json=True)),
        ("multipart/form-data; boundary=xx", lambda: damage(FORM_REQUEST)),
    ],
    ids=["json", "form"],
)
@fuzzed
@given(data=st.data())
def test_requests(kind: str, request_of: Callable[[], st.SearchStrategy[bytes]], data: st.DataObject, api) -> None:  # type: ignore[no-untyped-def]
    with no_hang():
        answer = api.post("/v1/captions", content=data.draw(request_of()), headers={"Content-Type": kind})
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or answer.json()["detail"]
