"""How input is cut into parts: every image once, whatever it lies in, by the name that one process calls it."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from showtell.bulk.parts import Part, find_parts, images_of
from showtell.errors import ImageError, ShowtellError, UsageError
from showtell.images import storage
from showtell.images.sources import Finder, find_images
from tests.fake_model import png

pa = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: photos in folders, a shard, a table of three groups of rows."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.jpg", "trip/c.png", "trip/.hidden.png", ".thumbs/x.png", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png("red"))
    with tarfile.open("s.tar", "w") as tar:
        for name in ("1.png", "1.json", "./2.png", "1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png("lime"))
            tar.addfile(member, io.BytesIO(png("lime")))
    parquet.write_table(pa.table({"image": [png("blue")] * 5 + [None]}), "t.parquet", row_group_size=2)
    return tmp_path


def names(parts: list[Part]) -> list[str]:
    return [image.name for part in parts for image in images_of(part)]


@pytest.mark.parametrize(
    "asked",
    [
        ["photos"],
        ["photos/"],
        ["./photos", "photos/trip"],
        ["."],
        ["photos/**/*"],
        ["photos/trip/c.png", "photos"],
        ["s.tar"],
        ["*.tar", "t.parquet", "photos"],
    ],
)
def test_images_are_those_of_one_process(place, asked):
    """Else a run on a cluster could not be compared with, or take over from, one that is not."""
    finder = Finder()
    parts = list(find_parts(asked, None, 2, finder))
    assert not finder.problems
    assert sorted(names(parts)) == sorted(image.name for image in find_images(asked)[0])


def test_parts_are_read(place):
    parts = list(find_parts(["photos", "s.tar", "t.parquet"], None, 10, Finder()))
    for image in (image for part in parts for image in images_of(part)):
        if image.name == "t.parquet/5":
            with pytest.raises(ImageError, match="row 5: the image is missing"):
                image.read()
        else:
            assert image.read().startswith(b"\x89PNG")


def test_parts_have_the_size_that_was_asked_for(place):
    """Loose files exactly, the last ones apart; tables between their groups; a shard is one part."""
    parts = list(find_parts(["photos", "s.tar", "t.parquet"], None, 2, Finder()))
    assert [(part.kind, len(part.names)) for part in parts] == [
        ("files", 2),
        ("shard", 0),
        ("rows", 2),
        ("rows", 2),
        ("rows", 2),
        ("files", 1),
    ]
    large = list(find_parts(["t.parquet"], None, 3, Finder()))
    assert [(part.first, len(part.names)) for part in large] == [(0, 4), (4, 2)]


def test_a_part_survives_the_list_of_parts():
    """A file name may hold bytes that are no Unicode, and line breaks."""
    part = Part("rows", ("a\udcff.png", "b\n.png"), "t.parquet", "image", 7)
    assert "\n" not in part.to_json()
    assert Part.from_json(part.to_json().encode()) == part


def test_urls_are_read_through_fsspec(place):
    """Also where one is in another: the archive is the outer end of the name."""
    with zipfile.ZipFile("p.zip", "w") as archive:
        for name in ("in/a.png", "in/deep/b.png", "c.png"):
            archive.writestr(name, png("lime"))
    outer = f"file://{place}/p.zip"
    parts = list(
        find_parts([f"zip://in::{outer}", f"file://{place}/photos", f"file://{place}/*.tar"], None, 9, Finder())
    )
    assert names(parts) == [
        f"file://{place}/s.tar/1.png",
        f"file://{place}/s.tar/2.png",
        f"zip://in/a.png::{outer}",
        f"zip://in/deep/b.png::{outer}",
        *(f"file://{place}/photos/{name}" for name in ("a.jpg", "b.png", "trip/c.png")),
    ]
    assert all(image.read() for part in parts for image in images_of(part))


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("nothing", "nothing: there is no such file."),
        ("empty", "empty: no image in this folder."),
        ("photos/*.gif", "photos/*.gif: no image matches."),
        ("none.parquet", "none.parquet: this table has no rows."),
        ("bad.parquet", "bad.parquet is not Parquet"),
    ],
)
def test_input_without_images_is_told_of(place, asked, problem):
    Path("empty").mkdir()
    parquet.write_table(pa.table({"image": pa.array([], pa.binary())}), "none.parquet")
    Path("bad.parquet").write_bytes(b"nonsense")
    finder = Finder()
    assert len(list(find_parts([asked, "s.tar"], None, 9, finder))) == 1
    assert str(finder.problems[0]).startswith(problem)


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(
        UsageError, match=r"nowhere://x is not an address that can be read: Protocol not known: nowhere\."
    ):
        list(Finder().files(["nowhere://x"]))


def failures(part: Part) -> list[str]:
    """What the images of a part that can't be read say."""
    said = []
    for image in images_of(part):
        try:
            image.read()
        except ShowtellError as error:
            said.append(str(error))
    return said


def test_a_broken_shard_is_an_image_that_failed(place):
    """What comes before the break is captioned; the reason must not get lost with the rest."""
    data = Path("s.tar").read_bytes()
    Path("cut.tar").write_bytes(data[:2000])
    Path("bad.tar").write_bytes(b"nonsense" * 100)
    Path("s.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600))
    with tarfile.open("empty.tar", "w"):
        pass
    assert names([Part("shard", where="cut.tar")]) == ["cut.tar/1.png", "cut.tar"]
    for name, reason in (
        ("cut.tar", "cut.tar is damaged or not a tar file: unexpected end of data."),
        ("bad.tar", "bad.tar is damaged or not a tar file: "),
        ("s.tar.zst", "s.tar.zst is compressed with Zstandard."),
        ("empty.tar", "empty.tar: no image in this shard."),
        ("missing.tar", "missing.tar can't be read: No such file or directory."),
    ):
        (said,) = failures(Part("shard", where=name))
        assert said.startswith(reason)


def test_large_files_are_not_read_whole(place, monkeypatch):
    """Workers have a core's share of memory; a film called x.jpg would end them all, one after the other."""
    monkeypatch.setattr("showtell.images.storage.LARGEST", 10)
    monkeypatch.setattr("showtell.bulk.parts.LARGEST", 10)
    for part in (Part("files", (f"file://{place}/photos/b.png",)), Part("shard", where="s.tar")):
        assert "is larger than" in failures(part)[0]


class Flaky:
    """A file system that breaks off as often as it is told to, and counts how often it was asked."""

    def __init__(self, system, breaks):
        self.system, self.breaks, self.asked = system, breaks, 0

    def __getattr__(self, name):
        return getattr(self.system, name)

    def cat_file(self, path, **span):
        self.asked += 1
        if self.asked <= self.breaks:
            raise OSError("connection reset")
        return self.system.cat_file(path, **span)


def test_what_a_network_breaks_is_read_again(place, monkeypatch):
    """A hiccup of a store must not set images aside; and a shard continues where it broke."""
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    monkeypatch.setattr(storage, "BLOCK", 1000)
    parts = list(find_parts([f"file://{place}/photos/b.png", f"file://{place}/s.tar"], None, 9, Finder()))
    expected = names(parts)
    opened = storage.file_system
    for breaks, fails in ((storage.TRIES - 1, False), (storage.TRIES, True)):
        systems = []

        def flaky(name, breaks=breaks, systems=systems):
            system, path = opened(name)
            systems.append(Flaky(system, breaks))
            return systems[-1], path

        monkeypatch.setattr(storage, "file_system", flaky)
        found = [image for part in parts for image in images_of(part)]
        if not fails:
            assert [image.name for image in found] == expected
            assert all(image.read() for image in found)
        else:
            for image in found:
                with pytest.raises(ShowtellError, match=r"(b\.png|s\.tar) can't be read: connection reset\."):
                    image.read()
        assert max(system.asked for system in systems) == storage.TRIES
