"""Tar shards: the conventions of webdataset and img2dataset, images read where they lie, what is wrong named."""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from showtell import data
from showtell.data import Dataset
from showtell.data.formats import shards
from showtell.errors import DataError, ImageError, MissingExtraError, UsageError
from showtell.images import storage


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file, "png")
    return file.getvalue()


def write_shard(path: Path, files: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def numbered(path: Path, numbers: range) -> Path:
    """A shard as img2dataset writes it: image i is of shade i."""
    files: dict[str, bytes | str] = {}
    for i in numbers:
        files[f"{i:05}.png"] = png(i)
        files[f"{i:05}.txt"] = f"shade {i}"
        files[f"{i:05}.json"] = json.dumps({"caption": f"shade {i}", "key": f"{i:05}", "status": "success"})
    return write_shard(path, files)


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {example.image_id: example.captions for example in dataset.examples}


def shades(dataset: Dataset) -> dict[str, int]:
    return {example.image_id: int(example.read()[0, 0, 0]) for example in reversed(dataset.examples)}


def test_braces_name_the_shards_and_images_are_read_in_any_order(tmp_path: Path) -> None:
    """A place that is off by one block would give another image's bytes, or none."""
    for number in range(3):
        numbered(tmp_path / f"{number:02}.tar", range(number * 10, number * 10 + 10))
    dataset = data.load(f"shards:{tmp_path}/{{00..02}}.tar")
    assert captions(dataset) == {f"{i:05}": (f"shade {i}",) for i in range(30)}
    assert shades(dataset) == {f"{i:05}": i for i in range(30)}
    assert dataset.splits == ("train", "dev", "test")
    assert dataset.notes == (
        "Neither samples nor shards name train, dev and test: images are split 80/10/10, the same way every time.",
    )
    for other in (tmp_path, f"{tmp_path}/*.tar", f"{tmp_path}/{{00,01}}.tar::{tmp_path}/02.tar"):
        assert data.load(f"shards:{other}").examples == dataset.examples


def test_samples_are_those_that_webdataset_finds(tmp_path: Path) -> None:
    """Keys with folders, dots in names, several files a sample, capitals, and files that belong to nothing."""
    webdataset = pytest.importorskip("webdataset")
    shard = write_shard(
        tmp_path / "0.tar",
        {
            "a/x.png": png(1),
            "a/x.txt": "one",
            "a/x.mask.png": png(9),
            "b.1/x.PNG": png(2),
            "b.1/x.txt": "two",
            "c.d.txt": "not the caption, which ends with .d.txt",
            "c.png": png(3),
            "c.txt": "three",
            "README": "no sample",
        },
    )
    dataset = data.load(f"shards:{shard}")
    theirs = {
        sample["__key__"]: (sample["txt"].decode(), sample["png"])
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False)
    }
    ours = {e.image_id: (e.captions[0], e.stored.read()) for e in dataset.examples if e.stored is not None}
    assert ours == theirs
    assert list(ours) == ["a/x", "b.1/x", "c"]


def test_captions_from_text_or_json(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "0.tar",
        {
            "a.png": png(0),
            "a.txt": "one\n two  words \n\n",
            "a.json": '{"caption": "not this"}',
            "b.png": png(0),
            "b.json": '{"captions": ["b1", "b2"], "re": "other"}',
            "c.json": '["c1", "c2"]',
            "c.png": png(0),
            "d.png": png(0),
            "d.txt": "  ",
            "d.json": '{"TEXT": 3, "title": "d1", "re": "other d"}',
        },
    )
    assert captions(data.load(f"shards:{shard}")) == {
        "a": ("one", "two words"),
        "b": ("b1", "b2"),
        "c": ("c1", "c2"),
        "d": ("d1",),
    }
    other = data.load(f"shards:{shard},caption=re")
    assert captions(other) == {"b": ("other",), "d": ("other d",)}
    assert other.notes[0] == f"Samples left out because there is no caption: 2, such as a in {shard}."


def test_broken_samples_are_left_out_and_reported(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "0.tar",
        {
            "a.png": png(7),
            "a.txt": "good",
            "b.txt": "no image",
            "c.png": png(0),
            "d.png": png(0),
            "d.json": "{",
            "e.png": png(0),
            "e.txt": b"\xff",
            "f.png": b"",
            "f.txt": "empty",
            "a.jpg": png(0),
            "g.png": b"no image at all",
            "g.txt": "decoded later",
        },
    )
    dataset = data.load(f"shards:{shard}")
    assert captions(dataset) == {"a": ("good",), "g": ("decoded later",)}
    assert dataset.examples[0].read()[0, 0, 0] == 7
    with pytest.raises(ImageError, match=rf"^{shard}: g\.png is not an image that showtell can read"):
        dataset.examples[1].read()
    assert dataset.notes[:-1] == tuple(
        f"Samples left out because {reason}: {count}, such as {key} in {shard}."
        for reason, count, key in (
            ("there is no image", 1, "b"),
            ("there is no caption", 1, "c"),
            ("the text is not UTF-8 or the JSON is damaged", 2, "d"),
            ("the image is empty", 1, "f"),
            ("its name was used before", 1, "a"),
        )
    )


def test_a_shard_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    """img2dataset that was killed; the last sample may lack captions, so it doesn't count."""
    shard = numbered(tmp_path / "0.tar", range(5))
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        cut = tar.getmember("00003.txt").offset_data
    shard.write_bytes(content[:cut])
    dataset = data.load(f"shards:{shard}")
    assert list(captions(dataset)) == ["00000", "00001", "00002"]
    assert dataset.notes[0] == (
        f"Samples left out because the shard is cut off in or after it: 1, such as 00003 in {shard}."
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("coco-train-0.tar", "coco-val-0.tar"), {"0": "train", "1": "dev"}),
        (("train2017/0.tar", "val2017/0.tar"), {"0": "train", "1": "dev"}),
        (("train/0.tar", "test/1.tar", "more/2.tar"), {"0": "train", "1": "test"}),
        (("trainable/0.tar", "validated/0.tar"), None),
        (("train/0.tar", "train/1.tar"), None),
    ],
)
def test_splits_named_by_shards(tmp_path: Path, names: tuple[str, ...], expected: dict[str, str] | None) -> None:
    for number, name in enumerate(names):
        write_shard(tmp_path / name, {f"{number}.png": png(0), f"{number}.txt": "x"})
    dataset = data.load(f"shards:{'::'.join(str(tmp_path / name) for name in names)}")
    found = {example.image_id: example.split for example in dataset.examples}
    if expected is None:
        assert any("80/10/10" in note for note in dataset.notes)
    else:
        assert found == expected
        rest = "Images left out because nothing names their split: 1."
        assert dataset.notes == ((rest,) if len(names) > 2 else ())


def test_splits_named_by_samples(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for key, split in (("a", "train"), ("b", "restval"), ("c", "VAL"), ("d", "test")):
        files |= {f"{key}.png": png(0), f"{key}.json": json.dumps({"caption": "x", "part": split})}
    shard = write_shard(tmp_path / "0.tar", files)
    dataset = data.load(f"shards:{shard},split=part")
    assert [example.split for example in dataset.examples] == ["train", "train", "dev", "test"]
    assert dataset.notes == ()


def test_keys_that_two_shards_use_get_the_shard_before_them(tmp_path: Path) -> None:
    """Captions of one photo under another's id would never be noticed."""
    for part in ("train", "val"):
        numbered(tmp_path / part / "0.tar", range(2))
    dataset = data.load(f"shards:{tmp_path}/{{train,val}}/0.tar")
    assert list(captions(dataset)) == ["train/0/00000", "train/0/00001", "val/0/00000", "val/0/00001"]
    assert [example.split for example in dataset.examples] == ["train", "train", "dev", "dev"]


def test_the_list_is_made_once_and_again_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """Old places in a new shard are other images' bytes."""
    shard = numbered(tmp_path / "0.tar", range(3))
    first = data.load(f"shards:{shard}")
    read: list[str] = []
    original = shards.read_listing
    monkeypatch.setattr(shards, "read_listing", lambda shard, settings: read.append(shard) or original(shard, settings))
    assert data.load(f"shards:{shard}").examples == first.examples
    assert read == []
    numbered(shard, range(4, 7))
    os.utime(shard, ns=(1, 1))
    assert list(captions(data.load(f"shards:{shard}"))) == ["00004", "00005", "00006"]
    assert read == [str(shard)]
    for kept in (own_cache / "shards").iterdir():
        kept.write_text("{")
    assert len(data.load(f"shards:{shard}").examples) == 3
    assert len(read) == 2


def test_what_is_no_shard_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "0.tar.gz"
    with tarfile.open(packed, "w:gz"):
        pass
    (tmp_path / "1.tar").write_bytes(b"x" * 2000)
    write_shard(tmp_path / "2.tar", {"a.txt": "x"})
    (tmp_path / "empty").mkdir()
    for where, message in (
        (packed, "is compressed. Unpack it; the tar file itself is read in place."),
        (tmp_path / "1.tar", "1.tar is damaged or not a tar file: "),
        (tmp_path / "2.tar", "2.tar has no image with a caption. Samples left out because there is no image: 1, such"),
        (tmp_path / "3.tar", "3.tar can't be opened: No such file or directory."),
        (tmp_path / "empty", "empty holds no shards. Looked for files that end with .tar."),
        (tmp_path / "x*.tar", "holds no shards"),
    ):
        with pytest.raises(DataError) as caught:
            data.load(f"shards:{where}")
        assert message in str(caught.value)
    for where, message in (
        (
            "a.tar,colour=x",
            "shards:a.tar,colour=x has an unknown setting 'colour=x'. Choose from: caption=, split=, encoding=.",
        ),
        ("{a.tar", "The braces in '{a.tar' are not balanced."),
        ("a.tar::a.tar", "a.tar is named twice."),
    ):
        with pytest.raises(UsageError) as usage:
            data.load(f"shards:{where}")
        assert message in str(usage.value)
    monkeypatch.setitem(__import__("sys").modules, "braceexpand", None)
    with pytest.raises(MissingExtraError, match=r"Reading shards .* 'showtell\[shards\]'"):
        data.load("shards:a.tar")


def test_a_shard_that_vanishes_later_stops_the_run_and_is_no_bad_image(tmp_path: Path) -> None:
    """An unmounted disk must not mark every image as unreadable for good."""
    shard = numbered(tmp_path / "0.tar", range(3))
    dataset = data.load(f"shards:{shard}")
    shard.unlink()
    with pytest.raises(DataError, match=r"0\.tar can't be read: No such file"):
        dataset.examples[0].read()


# ------------------------------------------------------------------------------------------------ addresses


class RangeServer(ThreadingHTTPServer):
    """Serves a folder, with ranges; fails as often as it is told to."""

    failures = 0
    ignore_ranges = False
    sent: int = 0


class RangeHandler(SimpleHTTPRequestHandler):
    server: RangeServer

    def do_GET(self) -> None:
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = 0, len(content) - 1
        if (wanted := self.headers.get("Range")) and not self.server.ignore_ranges:
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        body = content[first : last + 1]
        self.server.sent += len(body)  # before the answer: whoever has read it all may look at once
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    (tmp_path / "web").mkdir()
    server = RangeServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path / "web")))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: RangeServer, name: str) -> str:
    return f"shards:http://127.0.0.1:{server.server_port}/{name}"


def test_shards_on_a_web_server_are_read_range_by_range(
    tmp_path: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BLOCK", 10_000)  # samples cross the borders of blocks
    for number in range(2):
        numbered(tmp_path / "web" / f"{number}.tar", range(number * 10, number * 10 + 10))
    server.failures = 2
    dataset = data.load(url(server, "{0..1}.tar"))
    assert shades(dataset) == {f"{i:05}": i for i in range(20)}
    server.sent = 0
    dataset.examples[7].read()
    assert server.sent == len(png(7))
    data.load(url(server, "{0..1}.tar"))
    assert server.sent == len(png(7))  # the lists are kept


def test_a_server_that_fails_or_knows_no_ranges_is_named(tmp_path: Path, server: RangeServer) -> None:
    numbered(tmp_path / "web" / "0.tar", range(3))
    dataset = data.load(url(server, "0.tar"))
    server.failures = storage.TRIES
    with pytest.raises(DataError, match=r"0\.tar can't be read: .*503.* Run the command again to continue\."):
        dataset.examples[0].read()
    server.ignore_ranges = True
    with pytest.raises(DataError, match=r"can't be read in parts: its server sends it whole\. Download it"):
        dataset.examples[0].read()
    with pytest.raises(DataError, match=r"9\.tar can't be opened: there is no such file"):
        data.load(url(server, "9.tar"))


def test_addresses_that_nothing_reads() -> None:
    with pytest.raises(UsageError, match=r"nowhere://x\.tar is not an address that can be read: Protocol not known"):
        data.load("shards:nowhere://x.tar")


def test_two_loads_shuffle_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of examples, from which an epoch's order follows, doesn't depend on which list came first."""
    for number in range(6):
        numbered(tmp_path / f"{number}.tar", range(number * 10, number * 10 + 10))
    orders = []
    for cache in ("one", "two"):
        monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / cache))
        orders.append([example.image_id for example in data.load(f"shards:{tmp_path}").examples])
    assert orders[0] == orders[1] == sorted(orders[0])
    assert np.all(np.diff(np.array(orders[0], int)) == 1)
