"""The fields that hold a photo's description: dc:description in an XMP packet, Caption-Abstract (2:120) in IPTC.

What else a packet or an IPTC block holds stays as it is. Every problem is a ValueError whose text goes on after the
photo's name: "a.jpg" "has XMP that can't be read".
"""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image

from showtell.errors import MissingExtraError
from showtell.metadata import jpeg

DESCRIPTION = "Xmp.dc.description"
DEFAULT = "x-default"
CAPTION, CHARACTER_SET = "Iptc.Application2.Caption", "Iptc.Envelope.CharacterSet"
UTF8 = "\x1b%G"  # ISO 2022


def xmp_description(packet: bytes) -> str:
    """The description in a packet, in any language; empty if there is none."""
    xmp = _parsed(packet).xmpData()
    texts = dict(xmp[DESCRIPTION].value().items()) if DESCRIPTION in xmp else {}
    return next((text.strip() for text in (texts.get(DEFAULT, ""), *texts.values()) if text.strip()), "")


def with_xmp_description(packet: bytes | None, description: str) -> bytes:
    """The packet, or a new one, with a description in the default language, and in no other: those speak of the old."""
    exiv2 = exiv2_library()
    xmp_image = _parsed(packet or b"")
    xmp = xmp_image.xmpData()
    xmp[DESCRIPTION] = exiv2.LangAltValue({DEFAULT: description})
    code, text = exiv2.XmpParser.encode(xmp, exiv2.XmpParser.XmpFormatFlags.useCompactFormat, 1)
    if code:
        raise ValueError("has XMP that can't be written anew")
    return str(text).encode()


def iptc_caption(photoshop: Sequence[bytes]) -> str:
    """The caption in a JPEG's Photoshop segments; empty if there is none."""
    iptc = _carrier(photoshop).iptcData()
    return _text(iptc[CAPTION]).strip() if CAPTION in iptc else ""


def with_iptc_caption(photoshop: Sequence[bytes], description: str) -> list[bytes]:
    """A JPEG's Photoshop segments, or new ones, with this caption, in UTF-8 if the other fields allow it."""
    carrier = _carrier(photoshop)
    iptc = carrier.iptcData()
    if all(_text(datum).isascii() for datum in iptc if datum.key() not in (CAPTION, CHARACTER_SET)):
        iptc[CHARACTER_SET] = UTF8
    elif not (description.isascii() or (CHARACTER_SET in iptc and _text(iptc[CHARACTER_SET]) == UTF8)):
        raise ValueError("has IPTC fields in an older character set than UTF-8, which can't hold this description")
    iptc[CAPTION] = description
    try:
        carrier.writeMetadata()
    except exiv2_library().Exiv2Error:
        raise ValueError("has IPTC that can't be written anew") from None
    return jpeg.photoshop_of(bytes(carrier.io().data()))


@cache
def exiv2_library() -> Any:
    """The library, told to keep its warnings about odd metadata to itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import exiv2
    except ImportError:
        raise MissingExtraError("Writing descriptions into photos", "metadata") from None
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


def _carrier(photoshop: Sequence[bytes]) -> Any:
    """A JPEG in memory, of one pixel, that holds these segments."""
    exiv2 = exiv2_library()
    dot = io.BytesIO()
    Image.new("L", (1, 1)).save(dot, "JPEG")
    image = exiv2.ImageFactory.open(jpeg.with_photoshop(dot.getvalue(), photoshop))
    try:
        image.readMetadata()
    except exiv2.Exiv2Error:
        raise ValueError("has IPTC that can't be read") from None
    return image


def _text(datum: Any) -> str:
    """A field as text; bytes that are no UTF-8 become lone surrogates, which are not ASCII."""
    return str(datum.value().toString())
