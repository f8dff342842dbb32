"""Files: written completely or not at all, read as people write them; and the folder for caches.

New content is written to a hidden file in the same folder, flushed to the disk and renamed. A reader meanwhile, or
after a power failure, finds the old content or the new. Errors are OSErrors that name the file that was asked for.
"""

import codecs
import errno
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from showtell.errors import DataError, UsageError

T = TypeVar("T")

# Windows refuses to replace a file that a virus scanner or another reader has open: try again after these seconds.
PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0) if sys.platform == "win32" else ()
OF_RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors, written in Rust, reports a full disk
MOST_REPLACED = 100  # how often to read a folder again because it was replaced meanwhile
LONGEST_NAME = 255  # bytes that file systems take
GZIP = b"\x1f\x8b"  # how a gzip file begins
LOCKED_BYTE = 2**40  # Windows forbids reading and writing locked bytes, so this one is far behind the end
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@contextmanager
def new_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Write a file: the block writes to the path that it is given, which replaces `path` when the block ends.

    A link stays a link, and pipes and devices are written to directly. If the block raises, nothing has changed.

    Args:
        path: the file; its folder must be there.
        flush: False if the content can be made again: a power failure may then leave the file empty.

    Raises:
        OSError: it can't be written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    place = Path(os.path.realpath(path))
    with _aside(place) as aside, _called(path, aside):
        aside.touch(exist_ok=False)
        created = aside.stat()
        yield aside
        if not os.path.samestat(created, aside.stat()):  # safetensors renames a file that only its owner may read
            aside.chmod(created.st_mode)
        if flush:
            _flush(aside)
        move(aside, place)
    if flush:
        _flush_folder(place.parent)


def write_file(path: Path, content: bytes | str | Iterable[str], *, flush: bool = True) -> None:
    """Write a file of bytes, of one text or of many pieces; text in UTF-8, its line breaks as they are.

    Raises:
        OSError: it can't be written.
    """
    with new_file(path, flush=flush) as aside:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            with aside.open("w", encoding="utf-8", newline="") as file:
                file.writelines([content] if isinstance(content, str) else content)


def append(file: BinaryIO, content: bytes) -> None:
    """Write all of `content` at the end of an unbuffered file, or nothing of it: half a row would look like a row.

    Raises:
        OSError: it can't be written.
    """
    end = os.fstat(file.fileno()).st_size
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with suppress(OSError):  # a pipe
            file.truncate(end)
        raise


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file against other processes that lock it, too; it is made if it does not exist, and may be removed.

    The lock ends with the process, however that ends, so there is nothing to clean up. Yields whether that disk has
    locks at all.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it can't be opened.
    """
    file = path.open("ab")
    try:
        has_locks = _lock(file)
        while not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
            file.close()  # the process that had locked it has removed it since
            file = path.open("ab")
            has_locks = _lock(file)
        yield has_locks
    finally:
        file.close()


def check_writable(path: Path) -> None:
    """Check before the work, not after it, that a file can be written.

    Raises:
        UsageError: it can't.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.is_file() or not path.exists():
            with _aside(Path(os.path.realpath(path))) as aside:
                aside.touch(exist_ok=False)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.", "Name another file.") from None


def replace_file(path: Path, content: bytes, *, keep_as: str | None = None) -> None:
    """Put new content into a user's file.

    Permissions, extended attributes and, where the system allows it, the owner stay. The modification time is now, so
    that backups and photo managers notice the change. A link stays a link, and the file behind it gets the content.

    Args:
        path: the file; it must exist.
        content: the new content.
        keep_as: the name, in the same folder, under which the old file is kept, with its times; if it is too long for
            the file system, it is cut. An existing file of that name is never overwritten: it is older, and so the
            original.

    Raises:
        OSError: it can't be written, or is write-protected; it is then as it was.
    """
    path = path.resolve()
    if not os.access(path, os.W_OK):  # a rename needs only the folder's permission, but the file is protected
        raise PermissionError(errno.EACCES, "it is write-protected", str(path))
    with new_file(path) as aside:
        aside.write_bytes(content)
        _look_like(path, aside)
        if keep_as is not None:
            _keep(path, path.with_name(fitting(keep_as)))


@contextmanager
def new_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a folder: the block fills the folder that it is given, which replaces `path` when the block ends.

    Between its two renames `path` does not exist, so readers use `read_folder`.

    Args:
        path: the folder.
        shared: several processes may make the same folder at once; the first one that is finished stays.

    Raises:
        OSError: it can't be written.
    """
    finish_replacing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stale = beside(path, "old")
    with _aside(path) if shared else _cleared(beside(path, "new")) as fresh, _called(path, fresh):
        fresh.mkdir()
        yield fresh
        for file in fresh.rglob("*"):
            if file.is_file():
                _flush(file)
        _flush_folder(fresh)
        if not shared:
            shutil.rmtree(stale, ignore_errors=True)
            if path.exists():
                move(path, stale)
        try:
            move(fresh, path)
        except OSError:  # it exists: a reader finished this, or another process was faster
            if not path.exists():
                raise
    shutil.rmtree(stale, ignore_errors=True)
    _flush_folder(path.parent)


def finish_replacing(path: Path) -> None:
    """Do the second of `new_folder`'s two renames, if the process was killed between them."""
    fresh = beside(path, "new")
    if not path.exists() and beside(path, "old").exists() and fresh.exists():
        with suppress(OSError):  # the writer was faster; or a read-only disk: the caller says that nothing is there
            move(fresh, path)


def read_folder(path: Path, read: Callable[[], T]) -> T:
    """What `read` finds in a folder that another process may replace meanwhile (`new_folder`): never a mixture.

    It is called again if the folder was replaced while it read, or was not there between `new_folder`'s two renames.
    """
    for _ in range(MOST_REPLACED):
        finish_replacing(path)
        before = _identity(path)
        try:
            found = read()
        except Exception:  # whatever half a folder causes; raised if the folder is still the same
            if _identity(path) == before and (before or not beside(path, "old").exists()):
                raise
        else:
            if _identity(path) == before:
                return found
    return read()


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder; it replaces a file that has the new name."""
    for pause in PAUSES:
        try:
            return os.replace(source, target)  # noqa: PTH105 (of this module, so that tests can let it fail)
        except PermissionError:
            time.sleep(pause)
    return os.replace(source, target)  # noqa: PTH105


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in lower case; for a compressed file, the one before .gz."""
    name = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def as_text(content: bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Decode text from any program: in the encoding that its byte order mark names, else in `encoding`.

    Line ends become ``\\n``.

    Raises:
        UnicodeDecodeError: it is in another encoding.
        UsageError: there is no such encoding.
    """
    codec = next((codec for mark, codec in BYTE_ORDER_MARKS.items() if content.startswith(mark)), encoding)
    try:
        return content.decode(codec, errors).replace("\r\n", "\n").replace("\r", "\n")
    except LookupError:
        raise UsageError(
            f"There is no encoding '{encoding}'.", "Use one that Python knows, such as cp1252, latin-1 or shift_jis."
        ) from None


def read_text(path: Path, encoding: str = "utf-8", way_out: str = "Convert it to UTF-8.") -> str:
    """A text file, compressed by gzip or not, decoded by `as_text`; `way_out` is for other encodings.

    Raises:
        DataError: it can't be read, or is in another encoding.
        UsageError: there is no such encoding.
    """
    try:
        content = path.read_bytes()
        return as_text(gzip.decompress(content) if content.startswith(GZIP) else content, encoding)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be unpacked: {str(error).rstrip('.')}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        found = (encoding if error.encoding == "charmap" else error.encoding).upper()
        raise DataError(f"{path} is not {found} text (byte {error.start}).", way_out) from error


def read_lines(path: Path, encoding: str = "utf-8", way_out: str = "Convert it to UTF-8.") -> list[str]:
    """The lines of a text file, as an editor shows them (unlike `str.splitlines`). Raises as `read_text`."""
    return read_text(path, encoding, way_out).removesuffix("\n").split("\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is not JSON; or a key has two values, of which Python would silently keep the last.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        lines = str(error).startswith("Extra data")
        raise DataError(
            f"{path} is not JSON: {error}.", "If it holds an object on each line, rename it to .jsonl." * lines
        ) from error
    except KeyError as error:
        raise DataError(
            f"{path} has the key '{error.args[0]}' twice in one object.", "Give it one value, such as a list."
        ) from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise KeyError(next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n])))
    return found


def cache_folder() -> Path:
    """`SHOWTELL_CACHE` if it is set, else `showtell` in the system's folder for caches; it may not exist yet.

    `XDG_CACHE_HOME` counts on every system, as people who set it mean it.
    """
    if own := os.environ.get("SHOWTELL_CACHE"):
        return Path(own).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "showtell"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "showtell"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "showtell" / "Cache"
    return Path.home() / ".cache" / "showtell"


@contextmanager
def _called(path: Path, aside: Path) -> Iterator[None]:
    """Let the system's errors name the file that was asked for, not the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).startswith(str(aside))):
            error.filename = str(path)
        raise
    except Exception as error:
        if said := OF_RUST.search(str(error)):
            number = int(said[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What tells a folder from another one of the same name; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_mtime_ns
    return None


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where a file or a folder is written before it replaces `path`; what is left there afterwards is removed.

    Each path has one such name, so that the remains of a killed process are removed as well. If another process writes
    to it now, or if there are no locks to tell, the name is for this call alone.
    """
    lock, alone = beside(path, "showtell.lock"), False
    with ExitStack() as held:
        if sys.platform != "win32":  # Windows removes nothing that is open
            with suppress(OSError):
                alone = held.enter_context(locked(lock))
                held.callback(_remove, lock)
        with _cleared(beside(path, "showtell.tmp" if alone else f"{secrets.token_hex(4)}.tmp")) as aside:
            yield aside


@contextmanager
def _cleared(path: Path) -> Iterator[Path]:
    """Remove what is at `path`, a file or a folder, before and after the block."""
    _remove(path)
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def beside(path: Path, end: str) -> Path:
    """A hidden name in the same folder, never too long, and different for each path."""
    return path.with_name(f".{fitting(path.name, LONGEST_NAME - len(end) - 2)}.{end}")


def fitting(name: str, room: int = LONGEST_NAME) -> str:
    """The name; if it is longer than `room` bytes, its beginning and end with a digest between them."""
    data = os.fsencode(name)
    if len(data) <= room:
        return name
    begin, end = (part.decode("utf-8", "ignore") for part in (data[: room - 55], data[-20:]))
    return f"{begin}~{hashlib.sha256(data).hexdigest()[:8]}~{end}"


def _lock(file: BinaryIO) -> bool:
    """Whether there are locks here; raises BlockingIOError when another process has this one."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a network's file system without locks
            return False
    return True


def _flush(file: Path) -> None:
    """Flush a file's content to the disk."""
    with file.open("r+b") as opened:  # Windows flushes only what is open for writing
        os.fsync(opened.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, if the system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _look_like(path: Path, fresh: Path) -> None:
    """Copy everything but content and times from the old file to the new one."""
    old = path.stat()
    if hasattr(os, "chown"):
        with suppress(PermissionError):  # only root gives files away; anybody else's file becomes our own
            os.chown(fresh, old.st_uid, old.st_gid)
    shutil.copystat(path, fresh)
    os.utime(fresh)


def _keep(path: Path, original: Path) -> None:
    """Keep the old file under a second name, or as a copy if the disk has no hard links (FAT)."""
    try:
        os.link(path, original)
    except FileExistsError:
        pass
    except OSError:
        with new_file(original) as copied:
            shutil.copy2(path, copied)
