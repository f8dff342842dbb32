"""Where a PNG keeps XMP: in an iTXt chunk of the keyword XML:com.adobe.xmp (XMP part 3, section 1.1.5); EXIF; and the
text of the keyword Description (PNG, third edition, section 11.3.3).

Every problem is a ValueError whose text follows the photo's name: "a.png" "is cut off".
"""

import re
import zlib
from collections.abc import Iterator, Sequence

SIGNATURE = re.compile(rb"\x89PNG\r\n\x1a\n")
XMP, DESCRIPTION = b"XML:com.adobe.xmp", b"Description"
# What follows the keyword in an iTXt: compression flag and method, language, translated keyword, text.
TEXT = re.compile(rb"([\0\1])\0[^\0]*\0[^\0]*\0(.*)", re.DOTALL)
UNPACKED_LIMIT = 16 * 2**20  # bytes


def xmp_of(photo: bytes) -> bytes | None:
    return next((text for name, text in _texts(photo, XMP) if name == b"iTXt"), None)


def with_xmp(photo: bytes, packet: bytes) -> bytes:
    """The photo with this XMP packet where its own was, else before the picture, where readers find it early."""
    return _with_chunk(photo, _text_chunks(photo, XMP), b"iTXt", XMP + b"\0\0\0\0\0" + packet)


def exif_of(photo: bytes) -> bytes | None:
    return next((photo[start + 8 : end - 4] for name, start, end in _chunks(photo) if name == b"eXIf"), None)


def with_exif(photo: bytes, exif: bytes) -> bytes:
    """The photo with this EXIF in place of its own."""
    old = [(start, end) for name, start, end in _chunks(photo) if name == b"eXIf"]
    return _with_chunk(photo, old, b"eXIf", exif)


def description_of(photo: bytes) -> str:
    """The text of the keyword Description; empty if there is none."""
    texts = (
        text.decode("utf-8" if name == b"iTXt" else "latin-1", "replace") for name, text in _texts(photo, DESCRIPTION)
    )
    return next((text.strip() for text in texts if text.strip()), "")


def with_description(photo: bytes, description: str) -> bytes:
    """The photo with this description, if it has a text of that keyword."""
    old = _text_chunks(photo, DESCRIPTION)
    return _with_chunk(photo, old, b"iTXt", DESCRIPTION + b"\0\0\0\0\0" + description.encode()) if old else photo


def _with_chunk(photo: bytes, old: Sequence[tuple[int, int]], name: bytes, content: bytes) -> bytes:
    """The photo with a chunk in place of the old ones, else after the first chunk."""
    chunk = len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
    place = old[0][0] if old else next(end for name, _, end in _chunks(photo) if name == b"IHDR")
    pieces = [photo[:place], chunk]
    for start, end in old:
        pieces.append(photo[place:start])
        place = end
    return b"".join((*pieces, photo[place:]))


def _text_chunks(photo: bytes, keyword: bytes) -> list[tuple[int, int]]:
    return [
        (start, end)
        for name, start, end in _chunks(photo)
        if name in (b"tEXt", b"zTXt", b"iTXt") and photo.startswith(keyword + b"\0", start + 8)
    ]


def _texts(photo: bytes, keyword: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name of each chunk of a keyword, and its text."""
    for start, end in _text_chunks(photo, keyword):
        name, content = photo[start + 4 : start + 8], photo[start + 9 + len(keyword) : end - 4]
        if name == b"tEXt":
            yield name, content
        elif name == b"zTXt":
            yield name, _unpacked(content[1:])
        elif text := TEXT.fullmatch(content):
            yield name, _unpacked(text[2]) if text[1] == b"\1" else text[2]


def _chunks(photo: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, including its length and check sum."""
    place = 8
    while place + 12 <= len(photo):
        end = place + 12 + int.from_bytes(photo[place : place + 4], "big")
        name = photo[place + 4 : place + 8]
        if end > len(photo) or (place == 8 and name != b"IHDR"):
            break
        yield name, place, end
        if name == b"IEND":
            return
        place = end
    raise ValueError(f"is a damaged PNG: at byte {place:,} there is no chunk")


def _unpacked(text: bytes) -> bytes:
    try:
        unpacking = zlib.decompressobj()
        packet = unpacking.decompress(text, UNPACKED_LIMIT)
    except zlib.error:
        raise ValueError("has text that can't be unpacked") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"has text of more than {UNPACKED_LIMIT // 2**20} MiB")
    return packet
