"""What stands behind a command line's inputs: files, folders, globs, URLs and stdin as a list of images."""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from showtell import __version__
from showtell.errors import DataError, ImageError
from showtell.images import SUFFIXES

STDIN = "-"
URL_PREFIXES = ("http://", "https://")
URL_SAFE = "%:/?#[]@!$&'()*+,;="
URL_TIMEOUT = 20.0  # seconds without a byte
URL_LIMIT = 64 * 2**20  # bytes of one image


@dataclass(frozen=True)
class Input:
    """One image of the command line, by the name that the results call it."""

    name: str

    def read(self) -> str | BinaryIO:
        """What `read_image` takes: the path of a file, or the bytes of a URL or of stdin under its name.

        Raises:
            ImageError: the URL can't be fetched, or stdin is empty.
        """
        if self.name != STDIN and not self.name.startswith(URL_PREFIXES):
            return self.name
        file = io.BytesIO(stdin_bytes() if self.name == STDIN else fetch(self.name))
        file.name = "stdin" if self.name == STDIN else self.name  # what errors call it
        return file


def find_inputs(names: Iterable[str]) -> tuple[list[Input], list[DataError]]:
    """The images behind `names`, each once, in a fixed order; and what is wrong with names that hold none."""
    found: dict[str, Input] = {}
    problems: list[DataError] = []
    for name in names:
        try:
            for image in _images_of(name, problems):
                found.setdefault(image, Input(image))
        except DataError as error:
            problems.append(error)
    return list(found.values()), problems


def listed_names(path: str) -> list[str]:
    """The lines of a file, or of stdin for ``-``: one input a line; empty lines are skipped.

    Raises:
        DataError: the file can't be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"The list {path} can't be read: {error.strerror}.") from None
    return [os.fsdecode(line) for line in data.splitlines() if line.strip()]


def fetch(url: str) -> bytes:
    """The bytes behind a URL.

    Raises:
        ImageError: it can't be fetched, takes too long or is too large.
    """
    try:
        # A pasted URL may hold spaces and letters that a request line can't.
        request = Request(quote(url, safe=URL_SAFE), headers={"User-Agent": f"showtell/{__version__}"})
        with urlopen(request, timeout=URL_TIMEOUT) as answer:
            data: bytes = answer.read(URL_LIMIT + 1)
    except HTTPError as error:
        raise ImageError(f"{url} can't be fetched: the server answers {error.code} {error.reason}.") from None
    except URLError as error:
        raise ImageError(f"{url} can't be fetched: {error.reason}.") from None
    except TimeoutError:
        raise ImageError(f"{url} can't be fetched: no answer for {URL_TIMEOUT:.0f} s.") from None
    except (
        OSError,
        HTTPException,
        ValueError,
    ) as error:  # a connection that breaks off, a port that is no number
        raise ImageError(f"{url} can't be fetched: {error}.") from None
    if len(data) > URL_LIMIT:
        raise ImageError(f"{url} is larger than {URL_LIMIT // 2**20} MiB.", "Download it, and give the file.")
    return data


def stdin_bytes() -> bytes:
    """One image from stdin.

    Raises:
        ImageError: nothing came.
    """
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError("Stdin is empty.", "For '-', send one image: showtell caption - < photo.jpg")
    return data


def _images_of(name: str, problems: list[DataError]) -> list[str]:
    """The images behind one name; folders in it that can't be read are added to `problems`.

    Raises:
        DataError: there are none.
    """
    if name == STDIN or name.startswith(URL_PREFIXES):
        return [name]
    # os.path and not Path: a name that is too long or out of bounds is one bad input, and no exception.
    if os.path.isdir(name):  # noqa: PTH112
        before = len(problems)
        images = list(_images_in(name, problems))
        if not images and len(problems) == before:
            raise DataError(f"{name}: no image in this folder.", "Images are known by their suffix: .jpg, .png, ...")
        return images
    if os.path.lexists(name):
        return [name]
    if not glob.has_magic(name):
        raise DataError(f"{name}: there is no such file.")
    images = sorted(filter(is_image_name, glob.glob(name, recursive=True)))  # noqa: PTH207 (absolute, too)
    if not images:
        raise DataError(f"{name}: no image matches.")
    return images


def _images_in(folder: str, problems: list[DataError]) -> Iterator[str]:
    """The images in a folder and the folders below it, sorted; hidden ones are left out."""

    def unreadable(error: OSError) -> None:
        problems.append(DataError(f"{error.filename}: this folder can't be read ({error.strerror})."))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (str(Path(parent, name)) for name in sorted(files) if is_image_name(name))


def is_image_name(name: str) -> bool:
    """Whether a file that nobody named in full is taken for an image."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
