"""The description in an XMP packet: the property dc:description, a text for each language; and tiff:ImageDescription,
into which older programs copied the one in EXIF.

exiv2, which contains Adobe's XMP toolkit, reads and writes the packet. Every problem is a ValueError whose text follows
the photo's name: "a.jpg" "has XMP that can't be read".
"""

from functools import cache
from typing import Any

from showtell.errors import needs

DESCRIPTION, COPIED = "Xmp.dc.description", "Xmp.tiff.ImageDescription"
DEFAULT = "x-default"


def description_of(packet: bytes) -> str:
    """The description in a packet, in any language; empty if there is none."""
    xmp = _parsed(packet).xmpData()
    for name in (DESCRIPTION, COPIED):
        texts = dict(xmp[name].value().items()) if name in xmp else {}
        for text in (texts.get(DEFAULT, ""), *texts.values()):
            if text.strip():
                return str(text.strip())
    return ""


def with_description(packet: bytes | None, description: str) -> bytes:
    """The packet, or a new one, with a description in the default language only: others would translate the old one."""
    exiv2 = exiv2_library()
    xmp_image = _parsed(packet or b"")
    xmp = xmp_image.xmpData()
    for name in (DESCRIPTION, *([COPIED] if COPIED in xmp else ())):
        xmp[name] = exiv2.LangAltValue({DEFAULT: description})
    code, text = exiv2.XmpParser.encode(xmp, exiv2.XmpParser.XmpFormatFlags.useCompactFormat, 1)
    if code:
        raise ValueError("has XMP that can't be rewritten")
    return str(text).encode()


@cache
def exiv2_library() -> Any:
    """The library, told to keep its warnings about odd metadata to itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs("metadata", "Writing descriptions into photos"):
        import exiv2
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)
    return exiv2


def _parsed(packet: bytes) -> Any:
    """An XMP file in memory that holds this packet."""
    exiv2 = exiv2_library()
    image = exiv2.ImageFactory.create(exiv2.ImageType.xmp)
    try:
        image.setXmpPacket(packet.decode("utf-8-sig").rstrip("\0"))
    except (UnicodeDecodeError, exiv2.Exiv2Error):
        raise ValueError("has XMP that can't be read") from None
    return image
