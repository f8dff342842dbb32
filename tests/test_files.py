"""A file that is written is the old one or the new one; and text is read as people write it."""

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from showtell import files
from showtell.cli import message_and_exit_code
from showtell.errors import DataError, UsageError
from showtell.files import (
    check_writable,
    locked,
    new_file,
    new_folder,
    read_json,
    read_lines,
    read_text,
    replace_file,
    write_file,
)
from showtell.results.journal import journal_of


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

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert (file.read_bytes(), names(file.parent)) == (b"old", ["file"])


def test_a_new_file_is_as_readable_as_any_other(tmp_path):
    """mkstemp's 0600 is for secrets; safetensors renames a file of its own into the place, which is 0600 too."""
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "text")
        with new_file(tmp_path / "b") as aside:
            (tmp_path / "own").write_bytes(b"")
            (tmp_path / "own").chmod(0o600)
            (tmp_path / "own").replace(aside)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]


@pytest.mark.parametrize("name", ["n" * 251 + ".jpg", "長" * 83 + ".jpg"])
def test_names_as_long_as_file_systems_allow(tmp_path, name):
    """Systems count bytes and not letters."""
    path = tmp_path / name
    write_file(path, b"old")
    replace_file(path, b"new", keep_as=f"{name}_original")
    kept = next(each for each in tmp_path.iterdir() if each != path)
    assert (path.read_bytes(), kept.read_bytes(), len(names(tmp_path))) == (b"new", b"old", 2)
    assert kept.name.endswith("_original")
    assert kept.name.startswith(name[:60])
    write_file(path, b"newer")
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("letter", ["n", "長"])
def test_hidden_names_of_long_names_fit_and_differ(tmp_path, letter):
    """Two outputs whose names begin alike had one journal."""
    paths = [tmp_path / (letter * (250 // len(letter.encode())) + end) for end in ("a.csv", "b.csv")]
    for path in paths:
        path.touch()
        journal_of(path).touch()
        assert journal_of(path).name.endswith(".unfinished")
    assert len(names(tmp_path)) == 4


def test_a_lock_is_of_one_at_a_time_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    holds = "import sys, pathlib\nfrom showtell.files import locked\n"
    holds += "with locked(pathlib.Path(sys.argv[1])): print('', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with pytest.raises(BlockingIOError), locked(path):
            pass
        process.kill()
    with locked(path):
        path.unlink()
        with locked(path), pytest.raises(BlockingIOError), locked(path):  # the new file of that name is another's
            pass


def test_originals_of_long_names_that_begin_alike_are_both_kept(tmp_path):
    for end in "ab":
        path = tmp_path / ("n" * 250 + end)
        path.write_text(end)
        replace_file(path, b"new", keep_as=f"{path.name}_original")
    kept = {path.read_text() for path in tmp_path.iterdir() if path.name.endswith("_original")}
    assert kept == {"a", "b"}


def test_a_full_disk_names_the_file_and_leaves_nothing(file, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(file, "new")
    assert message_and_exit_code(caught.value) == (f"{file}: No space left on device.", 1)
    assert (file.read_bytes(), names(file.parent)) == (b"old", ["file"])


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_file(path, "new")
    assert caught.value.filename == str(path)
    with pytest.raises(UsageError, match=r"nowhere/file can't be written: No such file or directory\. Name another"):
        check_writable(path)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """Else `-o /dev/null`, said by root, would put a file in its place."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    check_writable(tmp_path / "pipe")
    write_file(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert names(tmp_path) == ["pipe"]


def test_windows_is_asked_again_while_somebody_reads(file, monkeypatch):
    refused = []
    rename = os.replace

    def replace(source, target):
        if len(refused) < 2:
            refused.append(target)
            raise PermissionError(13, "in use")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    write_file(file, "new")
    assert (file.read_bytes(), len(refused)) == (b"new", 2)


def test_flushing_asks_for_a_file_that_is_open_for_writing(file, monkeypatch):
    """Windows refuses to flush what is open for reading only."""
    flushed = []
    flush = os.fsync

    def fsync(handle):
        if not Path(f"/proc/self/fd/{handle}").is_dir():
            os.write(handle, b"")  # raises where it is not
            flushed.append(handle)
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(file, "new")
    assert len(flushed) == 1


@pytest.mark.parametrize("way", ["new_file", "new_folder"])
def test_what_a_killed_process_left_aside_goes_with_the_next(tmp_path, way):
    """A folder of photos does not fill up with hidden files, however often a command is killed."""
    path = tmp_path / "it"
    shared = {"shared": True} if way == "new_folder" else {}
    code = f"import pathlib, sys\nfrom showtell.files import {way}\n"
    code += f"with {way}(pathlib.Path(sys.argv[1]), **{shared}): print('', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        [beside] = [name for name in names(tmp_path) if name.endswith(".tmp")]
        with getattr(files, way)(path, **shared) as aside:  # nor is it taken from who is at work
            assert aside.name != beside
            assert beside in names(tmp_path)
        process.kill()
    assert beside in names(tmp_path)
    with getattr(files, way)(path, **shared) as aside:
        assert aside.name == beside
    assert names(tmp_path) == ["it"]


def test_where_there_are_no_locks_each_writes_to_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_lock", lambda file: False)
    with new_file(tmp_path / "it") as late:
        with new_file(tmp_path / "it") as early:
            early.write_text("early")
        late.write_text("late")
    assert (tmp_path / "it").read_text() == "late"
    assert names(tmp_path) == ["it"]


def test_the_first_of_two_shared_folders_stays(tmp_path):
    with new_folder(tmp_path / "index", shared=True) as late:
        with new_folder(tmp_path / "index", shared=True) as early:
            (early / "by").write_text("early")
        (late / "by").write_text("late")
    assert (tmp_path / "index" / "by").read_text() == "early"
    assert names(tmp_path) == ["index"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    with new_folder(tmp_path / "model") as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "model") as fresh:
        raise ZeroDivisionError
    assert (tmp_path / "model" / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_text_as_people_s_programs_write_it(tmp_path, codec):
    """Notepad marks UTF-8, PowerShell's `>` writes UTF-16, and both end lines in two characters."""
    mark = "\ufeff" if codec == "utf-16-be" else ""
    (tmp_path / "list").write_bytes((mark + '["é.jpg",\r\n1]\n').encode(codec))
    assert read_lines(tmp_path / "list") == ['["é.jpg",', "1]"]
    assert read_json(tmp_path / "list") == ["é.jpg", 1]


def test_compressed_text_is_read_and_damage_is_a_sentence(tmp_path):
    path = tmp_path / "a.csv.gz"
    packed = gzip.compress("é\r\n".encode())
    path.write_bytes(packed)
    assert read_lines(path) == ["é"]
    for damaged in (packed[:-9], packed[:12] + b"xx" + packed[14:], packed[:3]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.csv\.gz can't be unpacked: "):
            read_text(path)


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    (tmp_path / "list").write_bytes("é".encode("cp1252"))
    assert read_text(tmp_path / "list", "cp1252") == "é"
    with pytest.raises(DataError, match=r"list is not UTF-8 text \(byte 0\)\. Convert it to UTF-8\."):
        read_text(tmp_path / "list")


def test_a_full_disk_that_a_library_in_rust_meets(file):
    """safetensors has an error of its own for it."""
    with pytest.raises(OSError, match="No space left") as caught, new_file(file):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    with pytest.raises(ValueError, match="another"), new_file(file):
        raise ValueError("another")
