"""A file that is replaced is the old one or the new one, and keeps all but its content and time."""

import os
from pathlib import Path

import pytest

from showtell import files as replacing
from showtell.files import replace_file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o604)
    os.utime(path, (1e9, 1e9))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_permissions_stay_and_the_time_is_new(file):
    """Backups and photo managers find a changed file by its time."""
    replace_file(file, b"new")
    assert (file.read_bytes(), file.stat().st_mode & 0o777, file.stat().st_mtime > 1e9) == (b"new", 0o604, True)
    assert names(file.parent) == ["file"]


def test_old_file_is_kept_once_with_its_time(file):
    replace_file(file, b"new", keep_as="kept")
    replace_file(file, b"newer", keep_as="kept")
    kept = file.with_name("kept")
    assert (kept.read_bytes(), kept.stat().st_mtime) == (b"old", 1e9)
    assert (file.read_bytes(), names(file.parent)) == (b"newer", ["file", "kept"])


def test_old_file_is_copied_where_the_disk_has_no_links(file, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    replace_file(file, b"new", keep_as="kept")
    kept = file.with_name("kept")
    assert (kept.read_bytes(), kept.stat().st_mtime) == (b"old", 1e9)
    assert (file.read_bytes(), names(file.parent)) == (b"new", ["file", "kept"])


def test_write_protected(file, monkeypatch):
    """Renaming would go past the permissions of the file; who protects an original means it."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anything
    with pytest.raises(PermissionError, match="it is write-protected"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"


def test_links_stay_links(file, tmp_path):
    """Photo collections link to an archive; the archive's file is the one that changes."""
    (tmp_path / "album").mkdir()
    link = tmp_path / "album" / "link"
    link.symlink_to(file)
    replace_file(link, b"new", keep_as="kept")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == ["album", "file", "kept"]


@pytest.mark.parametrize("step", ["fsync", "utime", "replace"])
def test_failing_leaves_the_old_file_and_nothing_else(file, monkeypatch, step):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replacing.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert (file.read_bytes(), names(file.parent)) == (b"old", ["file"])
