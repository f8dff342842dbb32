"""A document as text from which every byte can be restored, and the images on the same disk that it shows."""

import codecs
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from showtell.errors import DataError
from showtell.files import replace_file
from showtell.images.names import as_on_disk
from showtell.results.alt_text.html import html_places
from showtell.results.alt_text.markdown import markdown_places
from showtell.results.alt_text.place import Place, Skipped

HTML = frozenset((".html", ".htm", ".xhtml"))
MARKDOWN = frozenset((".md", ".markdown"))

LINE_BREAK = re.compile(r"\r\n|\r|\n")
TEMPLATE = re.compile(r"\{\{|\{%|<[?%]|\$\{")  # an address that another program fills in
ON_WINDOWS = sys.platform == "win32"
DRIVE = re.compile("[A-Za-z]:/")
CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.I)
LATIN_1 = "cp1252"  # the variant of Windows, with a few more letters
UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True)
class Document:
    """A document and where it lacks alternative text."""

    path: Path
    content: bytes
    """What the file held when it was read."""
    text: str
    codec: tuple[str, str]
    """Encoding and error handler between `content` and `text`."""
    places: tuple[Place, ...]
    """Where images that are files lack text, in order."""
    skipped: tuple[Skipped, ...]
    """The images without text that are not files here."""
    files: Mapping[str, Path]
    """The file of each place's image."""
    images: int
    """All images in the document, those with text included."""

    def line_of(self, place: Place | Skipped) -> int:
        """The number of the line that a place is in, from 1."""
        return bisect_right(self._line_starts, place.start)

    def with_texts(self, texts: Mapping[str, str]) -> bytes:
        """The document with these texts, by image, in its places; a place whose image has no text stays as it is."""
        pieces, done = [], 0
        for place in self.places:
            if alt := texts.get(place.image):
                pieces += [self.text[done : place.start], self._writable(place.filled(alt))]
                done = place.end
        return "".join((*pieces, self.text[done:])).encode(*self.codec)

    def write(self, texts: Mapping[str, str]) -> None:
        """Put `with_texts` into the file.

        Raises:
            DataError: it can't be written, or somebody else has changed it since it was read.
        """
        try:
            if self.path.read_bytes() != self.content:
                raise DataError(
                    f"{self.path} has changed since it was read, so it is left as it is.", "Run the command again."
                )
            replace_file(self.path, self.with_texts(texts))
        except OSError as error:
            raise DataError(f"{self.path} can't be written: {error.strerror}.") from None

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(line_break.end() for line_break in LINE_BREAK.finditer(self.text))]

    def _writable(self, filled: str) -> str:
        """The text, with character references for letters that a document in an older encoding can't hold."""
        is_unicode = self.codec[1] != "surrogateescape" or all(not "\ud800" <= c <= "\udfff" for c in self.text)
        return filled if is_unicode else filled.encode("ascii", "xmlcharrefreplace").decode()


def read_document(path: Path, *, root: Path | None = None, decorative: bool = False) -> Document:
    """Read a document and find where it lacks alternative text.

    Args:
        path: the file, HTML or Markdown by its suffix.
        root: the folder to which addresses like `/images/dog.jpg` are relative.
        decorative: as in `html_places`.

    Raises:
        DataError: the file is neither, or can't be read.
        MissingExtraError: it is Markdown, and pyromark is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in HTML | MARKDOWN:
        raise DataError(
            f"{path} is neither HTML nor Markdown by its suffix.", f"Known are {', '.join(sorted(HTML | MARKDOWN))}."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from None
    codec = (UTF16[content[:2]], "surrogatepass") if content[:2] in UTF16 else ("utf-8", "surrogateescape")
    try:
        text = content.decode(*codec)
    except UnicodeDecodeError:
        raise DataError(f"{path} begins like UTF-16 but is not.") from None
    places, skipped, images = (html_places if suffix in HTML else markdown_places)(text, decorative=decorative)
    encoding = _encoding_of(content)
    found: list[Place] = []
    files: dict[str, Path] = {}
    for place in places:
        file = file_of(place.image, path.parent, root, encoding)
        if isinstance(file, Path):
            found.append(place)
            files[place.image] = file
        else:
            skipped.append(Skipped(place.start, place.image, file))
    skipped.sort(key=lambda place: place.start)
    return Document(path, content, text, codec, tuple(found), tuple(skipped), files, images)


def file_of(image: str, folder: Path, root: Path | None = None, encoding: str = LATIN_1) -> Path | str:
    """The file that an image's address names in a document in `folder`; or why it names none here.

    Bytes of the address, percent-encoded or not, are UTF-8, or else in `encoding`, the document's own.
    """
    if TEMPLATE.search(image):
        return "is filled in by a template"
    address = image.replace("\\", "/")  # as browsers do
    if DRIVE.match(address):
        address = f"file:///{address}"
    try:
        parts = urlsplit(address)
    except ValueError:
        return "is no address"
    scheme = parts.scheme.lower()
    if scheme == "data":
        return "is data in the document"
    is_file = scheme == "file" and parts.netloc.lower() in ("", "localhost")
    if (scheme or parts.netloc) and not is_file:
        return "is on another machine"
    if not parts.path or "\0" in unquote(parts.path):
        return "is no address"
    if parts.path.lower().endswith((".svg", ".svgz")):
        return "is a drawing (SVG)"
    if is_file and DRIVE.match(parts.path[1:]):
        if not ON_WINDOWS:
            return "is on a Windows drive"
        folder, path = Path(), parts.path[1:]
    elif is_file or not parts.path.startswith("/"):
        path = parts.path
    elif root is not None:
        folder, path = root, parts.path.lstrip("/")
    else:
        return "begins at the site's root (add --root DIR)"
    files = [folder / name for name in _decoded(path, encoding)]
    return next(filter(None, (file if file.exists() else next(as_on_disk([file])) for file in files)), files[0])


def _decoded(path: str, encoding: str) -> Iterator[str]:
    """The paths that a path in an address may mean, the likeliest first."""
    yield unquote(path, errors="surrogateescape")
    with suppress(UnicodeError):
        yield unquote_to_bytes(path.encode("utf-8", "surrogateescape")).decode(encoding)


def _encoding_of(content: bytes) -> str:
    """The encoding that a page declares, if it is older than UTF-8; else Latin-1."""
    declared = CHARSET.search(content, 0, 1024)
    try:
        name = codecs.lookup(declared[1].decode()).name if declared else "utf-8"
        "".encode(name)  # fails if it is not a text encoding
    except LookupError:
        return LATIN_1
    return LATIN_1 if name in ("utf-8", "ascii", "iso8859-1") else name
