"""Where a WebP keeps XMP and EXIF: in chunks of its extended format (RFC 9649, section 2.7).

Every problem is a ValueError whose text follows the photo's name: "a.webp" "is cut off".
"""

import re
from collections.abc import Iterator

SIGNATURE = re.compile(rb"RIFF....WEBP", re.DOTALL)
EXIF_HEADER = b"Exif\0\0"  # which some programs write, as in a JPEG
HAS_ALPHA, HAS_XMP = 0x10, 0x04  # flags of the extended format


def xmp_of(photo: bytes) -> bytes | None:
    return next((photo[start + 8 : end] for name, start, end in _chunks(photo) if name == b"XMP "), None)


def exif_of(photo: bytes) -> bytes | None:
    found = next((photo[start + 8 : end] for name, start, end in _chunks(photo) if name == b"EXIF"), None)
    return found.removeprefix(EXIF_HEADER) if found else None


def with_exif(photo: bytes, exif: bytes) -> bytes:
    """The photo with this EXIF in place of its own."""
    start, end = next((start, end) for name, start, end in _chunks(photo) if name == b"EXIF")
    header = EXIF_HEADER if photo.startswith(EXIF_HEADER, start + 8) else b""
    riff_end = _riff_end(photo)
    body = photo[12:start] + _chunk(b"EXIF", header + exif) + photo[end + (end - start) % 2 : riff_end]
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body + photo[riff_end:]


def with_xmp(photo: bytes, packet: bytes) -> bytes:
    """The photo with this XMP packet where its own was, else as the last chunk, and marked as having one."""
    riff_end = _riff_end(photo)
    chunks = list(_chunks(photo))
    header, start, end = chunks[0]
    if header == b"VP8X":
        extended = bytearray(photo[start : start + 18])
        extended[8] |= HAS_XMP
        pieces, place = [bytes(extended)], start + 18
    else:
        pieces, place = [_chunk(b"VP8X", _extended(header, photo[start + 8 : end]))], start
    old = [(start, end + (end - start) % 2) for name, start, end in chunks if name == b"XMP "]
    for number, (start, end) in enumerate(old or [(riff_end, riff_end)]):
        pieces.append(photo[place:start])
        if number == 0:
            pieces.append(_chunk(b"XMP ", packet))
        place = end
    body = b"".join((*pieces, photo[place:riff_end]))
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body + photo[riff_end:]


def _riff_end(photo: bytes) -> int:
    return 8 + int.from_bytes(photo[4:8], "little")


def _chunks(photo: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, with its header but without the byte that makes its length even."""
    riff_end = _riff_end(photo)
    if riff_end > len(photo) or riff_end % 2:
        raise ValueError("is a damaged WebP: its length is not the one that its first bytes give")
    place = 12
    while place < riff_end:
        end = place + 8 + int.from_bytes(photo[place + 4 : place + 8], "little")
        if end > riff_end:
            raise ValueError(f"is a damaged WebP: the chunk at byte {place:,} is cut off")
        yield photo[place : place + 4], place, end
        place = end + (end - place) % 2
    if place == 12:
        raise ValueError("is a damaged WebP: it is empty")


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _extended(kind: bytes, picture: bytes) -> bytes:
    """The extended format's header for a picture in the simple format: flags, width and height."""
    if kind == b"VP8 " and picture[3:6] == b"\x9d\x01\x2a" and len(picture) >= 10:  # lossy: RFC 6386, section 9.1
        size = int.from_bytes(picture[6:10], "little")
        width, height, flags = size & 0x3FFF, size >> 16 & 0x3FFF, HAS_XMP
    elif kind == b"VP8L" and picture[:1] == b"\x2f" and len(picture) >= 5:  # lossless: RFC 9649, section 3.4
        size = int.from_bytes(picture[1:5], "little")
        width, height = (size & 0x3FFF) + 1, (size >> 14 & 0x3FFF) + 1
        flags = HAS_XMP | (HAS_ALPHA if size >> 28 & 1 else 0)
    else:
        raise ValueError("is a damaged WebP: it does not begin with a picture")
    return bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
