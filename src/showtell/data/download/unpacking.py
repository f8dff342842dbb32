"""Unpack untrusted archives: nothing outside the folder, no links, no devices, no surprises in size.

The wanted files are written to a hidden folder beside their place and moved when all are there. An interrupted
call can be repeated: a file that exists with the right bytes is not written again.
"""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from showtell.data.download.fetching import CHUNK, BytesDone, need_space
from showtell.errors import DataError
from showtell.files import move

MOST_FILES = 1_000_000
MOST_TIMES_LARGER = 20  # than the archive; JSON files of captions grow six times
# zipfile raises NotImplementedError for an unknown compression or version
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file in an archive."""

    name: str
    size: int
    crc: int | None
    """CRC-32 of its bytes, if the archive has it."""
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    wanted: Sequence[str] = (),
    progress: BytesDone = lambda done, total: None,
) -> list[str]:
    """Put the wanted files of a zip or tar archive into the folder.

    Bytes are compared with the checksums in a zip archive; a tar archive has none, and must be checked before.

    Args:
        archive: the archive.
        folder: where it goes; files of the same names are replaced.
        wanted: patterns of names, where `*` matches no `/`; without any, all files.
        progress: called with the number of bytes written, and of all bytes.

    Returns:
        The names of the wanted files and folders directly in `folder`.

    Raises:
        DataError: the archive is damaged, has none of the wanted files, or contains any file that could do harm.
    """
    staging = folder / f".{archive.name}.unpacking"
    try:
        with _members_of(archive) as members:
            chosen = _chosen(archive, members, wanted)
            todo = [m for m in chosen if not _is_there(m, staging / m.name) and not _is_there(m, folder / m.name)]
            left = sum(member.size for member in todo)
            need_space(folder, left, f"Unpacking {archive.name}")
            done = total = sum(member.size for member in chosen)
            done -= left
            for member in todo:
                _write(member, staging)
                done += member.size
                progress(done, total)
    except DAMAGE as error:
        raise DataError(f"{archive} is damaged: {error}.", "Remove it, and download it again.") from None
    if staging.is_dir():
        _move(staging, folder)
    return sorted({PurePosixPath(member.name).parts[0] for member in chosen})


def _chosen(archive: Path, members: Iterator[ArchiveMember], wanted: Sequence[str]) -> list[ArchiveMember]:
    """The wanted members, once all of them are known to be harmless. Raises DataError."""
    most = MOST_TIMES_LARGER * archive.stat().st_size
    chosen, names, total = [], set(), 0
    for number, member in enumerate(members):
        if not _stays_inside(member.name):
            raise DataError(
                f"{archive} holds a file that would be written outside the folder: {member.name!r}.", "Don't use it."
            )
        if number >= MOST_FILES:
            raise DataError(f"{archive} holds more than {MOST_FILES:,} files.", "Don't use it.")
        if member.name.casefold() in names:
            raise DataError(f"{archive} holds {member.name!r} twice.", "Don't use it.")
        names.add(member.name.casefold())
        if not wanted or any(_matches(member.name, pattern) for pattern in wanted):
            chosen.append(member)
            total += member.size
        if total > most:
            raise DataError(f"{archive} unpacks to more than {MOST_TIMES_LARGER} times its size.", "Don't use it.")
    if not chosen:
        raise DataError(f"{archive} holds none of the expected files: {', '.join(wanted) or 'it is empty'}.")
    return chosen


def _stays_inside(name: str) -> bool:
    """Whether a name is a plain relative path on every system, without a Windows drive."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") for part in parts)
    return plain and name.isprintable() and not any(sign in name for sign in '\\:*?"<>|')


def _matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern, part by part."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


@contextmanager
def _members_of(archive: Path) -> Iterator[Iterator[ArchiveMember]]:
    """The files of an archive, without folders; links and devices raise DataError when their turn comes."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield _members_of_zip(archive, opened)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            yield _members_of_tar(archive, opened)
    else:
        raise DataError(f"{archive} is neither a zip nor a tar archive.", "Remove it, and download it again.")


def _members_of_zip(archive: Path, opened: zipfile.ZipFile) -> Iterator[ArchiveMember]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was made on Windows
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _no_file(archive, info.filename)
        if info.flag_bits & 1:
            raise DataError(f"{archive} is encrypted.", "Unpack it by hand.")
        if not info.is_dir():
            yield ArchiveMember(info.filename, info.file_size, info.CRC, partial(opened.open, info))


def _members_of_tar(archive: Path, opened: tarfile.TarFile) -> Iterator[ArchiveMember]:
    for info in opened:
        if not (info.isreg() or info.isdir()):
            raise _no_file(archive, info.name)
        if info.isreg():
            yield ArchiveMember(info.name.removeprefix("./"), info.size, None, partial(_open_in_tar, opened, info))


def _open_in_tar(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(info)
    assert content is not None, "a regular file has content"
    return content


def _no_file(archive: Path, name: str) -> DataError:
    return DataError(f"{archive} holds a link or a device, which are not unpacked: {name!r}.", "Don't use it.")


def _is_there(member: ArchiveMember, path: Path) -> bool:
    """Whether the member is already unpacked: same size, and same bytes if the archive has checksums."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size != member.size:
        return False
    if member.crc is None:
        return True
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def _write(member: ArchiveMember, staging: Path) -> None:
    """Write one member, completely or not at all."""
    path = staging / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = staging.with_name(f"{staging.name}.tmp")  # not in `staging`: no member has this name
    try:
        with member.open() as content, fresh.open("wb") as file:
            written = 0
            while chunk := content.read(CHUNK):
                written += len(chunk)
                if written > member.size:
                    break
                file.write(chunk)
        if written != member.size:
            raise EOFError(f"{member.name} is not {member.size:,} bytes long, as the archive says")
        move(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    """Move the content of a folder into another one, and whole folders if the target has none of that name."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            move(path, place)
    source.rmdir()
