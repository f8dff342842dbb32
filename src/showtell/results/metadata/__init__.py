"""A caption as the description of a photo, in the file itself: XMP, and in a JPEG IPTC too.

Viewers differ in where they look for a description. So if EXIF, or a PNG's text, held one before, it says the same
afterwards.

The library exiv2 reads and writes XMP (`xmp.py`). It never sees the photo: when it writes whole files, it rewrites
EXIF, colour profiles and comments, and not always as they were. The modules `jpeg`, `png` and `webp` put its packet
into the file, and all other bytes stay as they are, pixels first.

No library could replace them. Pillow encodes the pixels of a JPEG and a lossy WebP again when it saves metadata.
piexif knows only EXIF, and iptcinfo3 only a JPEG's IPTC. python-xmp-toolkit needs the library exempi, which no wheel
contains. pyexiv2 is the same exiv2, under the same GPL, and writes whole files.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image

from showtell.errors import ImageError
from showtell.files import replace_file
from showtell.results.metadata import exif, iptc, jpeg, png, webp, xmp

# exiftool keeps originals under this name, too, and its -restore_original and -delete_original find them.
ORIGINAL = "{name}_original"

# What cameras write there on their own.
NO_DESCRIPTIONS = frozenset(
    ("OLYMPUS DIGITAL CAMERA", "KONICA MINOLTA DIGITAL CAMERA", "MINOLTA DIGITAL CAMERA", "SONY DSC", "DIGITAL CAMERA")
)

Result = TypeVar("Result")


class Container(Protocol):
    """What the modules `jpeg`, `png` and `webp` have in common."""

    @property
    def SIGNATURE(self) -> re.Pattern[bytes]:
        """How a file of the format begins."""
        ...

    def xmp_of(self, photo: bytes) -> bytes | None:
        """The XMP packet in a file of the format."""
        ...

    def with_xmp(self, photo: bytes, packet: bytes) -> bytes:
        """The file with this XMP packet in place of its own."""
        ...

    def exif_of(self, photo: bytes) -> bytes | None:
        """The EXIF in a file of the format, from its byte order on."""
        ...

    def with_exif(self, photo: bytes, exif: bytes) -> bytes:
        """The file with this EXIF in place of its own."""
        ...


def describe_photo(path: Path, description: str, *, replace: bool = False, keep_original: bool = True) -> bool:
    """Put a description into a photo: into XMP as dc:description, in a JPEG also into IPTC as Caption-Abstract; and
    into EXIF's ImageDescription and a PNG's Description if the photo has them.

    Args:
        path: a JPEG, PNG or WebP file.
        description: one line of text.
        replace: whether to replace a description that the photo has.
        keep_original: keep the photo as it was beside the new one, as `NAME_original`.

    Returns:
        Whether the description was written; if not, the photo has one already.

    Raises:
        ImageError: the file is of another format, can't be written, or holds metadata that can't be read.
        MissingExtraError: exiv2 is not installed.
    """
    try:
        photo = path.read_bytes()
        if not replace and description_of(photo, str(path)):
            return False
        described = with_description(photo, description, str(path))
        replace_file(path, described, keep_as=ORIGINAL.format(name=path.resolve().name) if keep_original else None)
    except OSError as error:
        raise ImageError(f"{path} can't be given a description: {error.strerror}.") from None
    return True


def description_of(photo: bytes, name: str = "The photo") -> str:
    """The description in a photo's XMP, else IPTC, else EXIF, else a PNG's text; empty if there is none.

    Raises:
        ImageError: the photo is of another format, or its metadata can't be read.
        MissingExtraError: exiv2 is not installed.
    """
    return _sound(_description_of, photo, name)


def with_description(photo: bytes, description: str, name: str = "The photo") -> bytes:
    """The photo with another description, and nothing else changed.

    Raises:
        ImageError: the photo is of another format, or its metadata can't be read or hold the description.
        MissingExtraError: exiv2 is not installed.
    """

    def edited(photo: bytes) -> bytes:
        container = _container(photo)
        packet = xmp.with_description(container.xmp_of(photo), description)
        photo = container.with_xmp(photo, packet)
        old = container.exif_of(photo)
        if old and (new := exif.with_description(old, description)) != old:
            photo = container.with_exif(photo, new)
        if container is png:
            photo = png.with_description(photo, description)
        if container is jpeg:
            photo = jpeg.with_photoshop(photo, iptc.with_caption(jpeg.photoshop_of(photo), description))
        return photo

    return _sound(edited, photo, name)


def _description_of(photo: bytes) -> str:
    container = _container(photo)
    packet = container.xmp_of(photo)
    return (
        (xmp.description_of(packet) if packet else "")
        or (iptc.caption_of(jpeg.photoshop_of(photo)) if container is jpeg else "")
        or _exif_description(photo)
        or (png.description_of(photo) if container is png else "")
    )


def _exif_description(photo: bytes) -> str:
    """The image's description in EXIF; empty if EXIF is damaged."""
    try:
        with Image.open(io.BytesIO(photo)) as image:
            text = image.getexif().get(exif.IMAGE_DESCRIPTION, "")
    except Exception:  # whatever damaged EXIF does to its reader: the photo can still be described
        return ""
    text = text.replace("\0", " ").strip() if isinstance(text, str) else ""
    return "" if text.upper() in NO_DESCRIPTIONS else text


def _container(photo: bytes) -> Container:
    """The module that knows the photo's format."""
    containers: tuple[Container, ...] = (jpeg, png, webp)
    for container in containers:
        if container.SIGNATURE.match(photo):
            return container
    raise ValueError("is neither JPEG, PNG nor WebP; only these can hold a description")


def _sound(work: Callable[[bytes], Result], photo: bytes, name: str) -> Result:
    """Do the work; an error names the photo."""
    try:
        return work(photo)
    except ValueError as error:
        raise ImageError(f"{name} {error}.") from None
