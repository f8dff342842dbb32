"""Files: written whole or not at all; and the one folder for what showtell can build again."""

import errno
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes, *, keep_as: str | None = None) -> None:
    """Put new content into a file in one step: who reads it meanwhile, or pulls the plug, finds the old or the new.

    Permissions, extended attributes and, where the system lets us, the owner stay. The time of the last change is
    now: that is how backups and photo managers see that there is something new. A link stays a link, and the file
    behind it gets the content.

    Args:
        path: the file; it must be there.
        content: what it holds from now on.
        keep_as: the name, in the same folder, under which the old file stays, its times included; a file of that
            name is never written over: it is older, and so the original.

    Raises:
        OSError: it can't be written, or is write-protected; it is then as it was.
    """
    path = path.resolve()
    if not os.access(path, os.W_OK):  # a rename asks the folder only, and somebody protects the file
        raise PermissionError(errno.EACCES, "it is write-protected", str(path))
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _look_like(path, fresh)
        if keep_as is not None:
            _keep(path, path.with_name(keep_as))
        os.replace(fresh, path)  # noqa: PTH105 (a name that mkstemp gave)
    except BaseException:
        with suppress(OSError):
            Path(fresh).unlink()
        raise


def _look_like(path: Path, fresh: str) -> None:
    """Give a fresh file everything of the old one but content and times."""
    old = path.stat()
    if hasattr(os, "chown"):
        with suppress(PermissionError):  # only root gives files away; anybody else's file becomes our own
            os.chown(fresh, old.st_uid, old.st_gid)
    shutil.copystat(path, fresh)
    os.utime(fresh)


def _keep(path: Path, original: Path) -> None:
    """A second name for the old file, which is a copy where the disk knows no second names (FAT)."""
    try:
        os.link(path, original)
    except FileExistsError:
        pass
    except OSError:
        copied = original.with_name(f".{original.name[:100]}.tmp")
        shutil.copy2(path, copied)
        copied.replace(original)


def cache_folder() -> Path:
    """`SHOWTELL_CACHE` if that is set, else `showtell` in the system's folder for caches; it may not exist yet.

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
