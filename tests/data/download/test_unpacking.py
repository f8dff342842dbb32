"""Unpacking: every kind of archive that could write elsewhere or fill the disk, and being interrupted."""

import io
import os
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.data.download import fetching, unpacking
from showtell.data.download.unpacking import unpack
from showtell.errors import DataError

FILES = {"photos/a.jpg": b"a" * 1000, "photos/b.jpg": b"b" * 1000, "captions.txt": b"text"}
JUNK = {"__MACOSX/photos/._a.jpg": b"junk", "photos/deep/c.jpg": b"c", "thumbs.db": b""}


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            archive.writestr(info, content)
    return path


def make_tar(path, members):
    """From names and contents, or whole TarInfos."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_wanted_files_only(tmp_path, folder, make):
    """A `*` that reached over a slash would bring Mac's junk along."""
    archive = make(tmp_path / "x", FILES | JUNK)
    seen = []
    names = unpack(archive, folder, ("photos/*.jpg", "*.txt"), lambda done, total: seen.append((done, total)))
    assert tree(folder) == FILES
    assert names == ["captions.txt", "photos"]
    assert seen[-1] == (2004, 2004)
    assert sorted(path.name for path in folder.iterdir()) == names, "temporary folders stay behind"


def test_everything(tmp_path, folder):
    unpack(make_zip(tmp_path / "x", FILES | JUNK), folder)
    assert tree(folder) == FILES | JUNK


def test_a_tar_that_begins_with_a_dot(tmp_path, folder):
    unpack(make_tar(tmp_path / "x", {"./photos/a.jpg": b"a"}), folder, ("photos/*",))
    assert tree(folder) == {"photos/a.jpg": b"a"}


def test_permissions_of_the_archive_are_not_taken_over(tmp_path, folder):
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o104777 << 16  # setuid, for everybody
    unpack(make_zip(tmp_path / "x", {info: b"a"}), folder)
    assert not (folder / "a").stat().st_mode & 0o7111


ESCAPES = ["../evil", "a/../../evil", "/evil", "a//evil", "C:/evil", "..\\evil", "a/./evil", "a\nb", "con:x", "a*"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_lead_elsewhere(tmp_path, folder, make, name):
    """One such name, wanted or not, and nothing of the archive is used."""
    archive = make(tmp_path / "x", {"a.txt": b"good", name: b"evil"})
    with pytest.raises(DataError, match="holds a file that would be written outside"):
        unpack(archive, folder, ("a.txt",))
    assert tree(tmp_path).keys() == {"x"}


@given(st.text(alphabet="ab./\\:\0 é", min_size=1, max_size=12))
def test_a_name_that_passes_stays_inside(name):
    if unpacking._stays_inside(name):
        assert os.path.normpath(f"/root/{name}").startswith("/root/")
        assert os.path.normpath(name) == name


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, folder, kind):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="holds a link or a device, which are not unpacked: 'link'"):
        unpack(make_tar(tmp_path / "x", {"a": b"a", info: b""}), folder)
    assert tree(folder) == {}


def test_links_in_a_zip(tmp_path, folder):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match="holds a link or a device"):
        unpack(make_zip(tmp_path / "x", {info: b"/etc"}), folder)


def test_a_bomb_is_refused_before_it_is_written(tmp_path, folder):
    info = zipfile.ZipInfo("zeros")
    info.compress_type = zipfile.ZIP_DEFLATED
    with pytest.raises(DataError, match="unpacks to more than 20 times its size"):
        unpack(make_zip(tmp_path / "x", {info: bytes(10_000_000)}), folder)
    assert tree(folder) == {}


def test_a_bomb_that_lies_about_its_size(tmp_path, folder):
    """The directory of the zip says 10 bytes; the data are more."""
    archive = make_zip(tmp_path / "x", {"a": b"0123456789" * 100})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="is damaged"):
        unpack(archive, folder)
    assert tree(folder) == {}


def test_too_many_files(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_FILES", 2)
    with pytest.raises(DataError, match="holds more than 2 files"):
        unpack(make_zip(tmp_path / "x", FILES), folder)


def test_the_same_name_twice(tmp_path, folder):
    """On a Mac the second would replace the first."""
    with pytest.raises(DataError, match=r"holds 'A\.JPG' twice"):
        unpack(make_zip(tmp_path / "x", {"a.jpg": b"a", "A.JPG": b"b"}), folder)


def test_an_encrypted_zip(tmp_path, folder):
    archive = make_zip(tmp_path / "x", {"a": b"a"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(archive, folder)


def test_a_damaged_zip(tmp_path, folder):
    archive = make_zip(tmp_path / "x", {"a.bin": os.urandom(100_000)})
    data = bytearray(archive.read_bytes())
    data[50_000] ^= 255
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"x is damaged: .* Remove it, and download it again"):
        unpack(archive, folder)


def test_a_tar_that_is_cut_off(tmp_path, folder):
    archive = make_tar(tmp_path / "x", {"a.bin": os.urandom(100_000)})
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"x is damaged"):
        unpack(archive, folder)


def test_no_archive(tmp_path, folder):
    (tmp_path / "x").write_bytes(b"<html>")
    with pytest.raises(DataError, match="is neither a zip nor a tar archive"):
        unpack(tmp_path / "x", folder)


def test_none_of_the_expected_files(tmp_path, folder):
    with pytest.raises(DataError, match=r"holds none of the expected files: train2014/\*\.jpg"):
        unpack(make_zip(tmp_path / "x", FILES), folder, ("train2014/*.jpg",))


def test_a_full_disk(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"Unpacking x takes 0\.0 GB"):
        unpack(make_zip(tmp_path / "x", FILES), folder)


def test_an_interrupted_one_goes_on(tmp_path, folder, monkeypatch):
    """Only what is missing or wrong is written again; until the end nothing stands at its place."""
    archive = make_zip(tmp_path / "x", FILES)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, progress=interrupt)
    assert not (folder / "photos").exists()
    assert len(tree(folder)) == 1
    (folder / ".x.unpacking" / "photos" / "b.jpg").write_bytes(b"B" * 1000)  # the same size, and wrong
    written = []
    write = unpacking._write
    monkeypatch.setattr(
        unpacking, "_write", lambda member, folder: (written.append(member.name), write(member, folder))
    )
    unpack(archive, folder)
    assert sorted(written) == ["captions.txt", "photos/b.jpg"]
    assert tree(folder) == FILES
    unpack(archive, folder)
    assert len(written) == 2, "what is at its place is not written again"


def test_two_archives_share_a_folder(tmp_path, folder):
    """COCO's years both have `annotations/`."""
    unpack(make_zip(tmp_path / "x", {"annotations/one.json": b"1"}), folder)
    unpack(make_zip(tmp_path / "y", {"annotations/two.json": b"2"}), folder)
    assert tree(folder) == {"annotations/one.json": b"1", "annotations/two.json": b"2"}
