"""Where a PNG keeps XMP: in an iTXt chunk of the keyword XML:com.adobe.xmp (XMP part 3, section 1.1.5).

Every problem is a ValueError whose text goes on after the photo's name: "a.png" "is cut off".
"""

import re
import zlib
from collections.abc import Iterator

SIGNATURE = re.compile(rb"\x89PNG\r\n\x1a\n")
KEYWORD = b"XML:com.adobe.xmp\0"
# Keyword, compression flag and method, language, translated keyword, text.
TEXT = re.compile(re.escape(KEYWORD) + rb"([\0\1])\0[^\0]*\0[^\0]*\0(.*)", re.DOTALL)
UNPACKED_LIMIT = 16 * 2**20  # bytes


def xmp_of(photo: bytes) -> bytes | None:
    for name, start, end in _chunks(photo):
        text = TEXT.fullmatch(photo, start + 8, end - 4) if name == b"iTXt" else None
        if text:
            return _unpacked(text[2]) if text[1] == b"\1" else text[2]
    return None


def with_xmp(photo: bytes, packet: bytes) -> bytes:
    """The photo with this XMP packet where its own was, else before the picture, where readers find it early."""
    content = b"iTXt" + KEYWORD + b"\0\0\0\0" + packet
    chunk = (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
    chunks = list(_chunks(photo))
    old = [(start, end) for name, start, end in chunks if name == b"iTXt" and photo.startswith(KEYWORD, start + 8)]
    place = old[0][0] if old else next(end for name, _, end in chunks if name == b"IHDR")
    pieces = [photo[:place], chunk]
    for start, end in old:
        pieces.append(photo[place:start])
        place = end
    return b"".join((*pieces, photo[place:]))


def _chunks(photo: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, length and check sum included."""
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
    raise ValueError(f"is no sound PNG: at byte {place:,} there is no chunk")


def _unpacked(text: bytes) -> bytes:
    try:
        unpacking = zlib.decompressobj()
        packet = unpacking.decompress(text, UNPACKED_LIMIT)
    except zlib.error:
        raise ValueError("has XMP that can't be unpacked") from None
    if unpacking.unconsumed_tail:
        raise ValueError(f"has XMP of more than {UNPACKED_LIMIT // 2**20} MiB")
    return packet
