"""Where a JPEG keeps XMP and IPTC: in segments before the scan (ISO 10918-1; XMP part 3, section 1.1.3).

Every problem is a ValueError whose text follows the photo's name: "a.jpg" "is cut off".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SIGNATURE = re.compile(rb"\xff\xd8\xff")
LONGEST = 65533  # bytes of a segment's content

APP0, APP1, APP2, APP13, SCAN = 0xE0, 0xE1, 0xE2, 0xED, 0xDA
EXIF = (APP1, b"Exif\0")
EXIF_HEADER = b"Exif\0\0"
XMP = (APP1, b"http://ns.adobe.com/xap/1.0/\0")
PHOTOSHOP = (APP13, b"Photoshop 3.0\0")  # its resource 0x0404 is IPTC
MORE_PICTURES = (APP2, b"MPF\0")

# A marker that has content, and the content's length; fill bytes may stand before it.
HEADER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd9\xff])(..)", re.DOTALL)


@dataclass(frozen=True)
class Segment:
    """A segment before the scan: `photo[start:end]`, fill bytes and header included."""

    marker: int
    content: bytes
    start: int
    end: int

    def is_a(self, kind: tuple[int, bytes]) -> bool:
        """Whether this segment has that marker and a content that begins so."""
        return self.marker == kind[0] and self.content.startswith(kind[1])


def xmp_of(photo: bytes) -> bytes | None:
    """The XMP packet. (Extended XMP, which did not fit in 64 KB, is in other segments, which stay as they are.)"""
    packets = [segment.content for segment in segments(photo) if segment.is_a(XMP)]
    return packets[0].removeprefix(XMP[1]) if packets else None


def with_xmp(photo: bytes, packet: bytes) -> bytes:
    """The photo with this XMP packet in place of its own."""
    if len(packet) > LONGEST - len(XMP[1]):
        raise ValueError("has no room for a description: its XMP would be longer than a JPEG's may be")
    return _with_segments(photo, XMP, [XMP[1] + packet], behind=(EXIF,))


def exif_of(photo: bytes) -> bytes | None:
    found = [segment.content for segment in segments(photo) if segment.is_a(EXIF)]
    return found[0][len(EXIF_HEADER) :] if found else None


def with_exif(photo: bytes, exif: bytes) -> bytes:
    """The photo with this EXIF in place of its own."""
    if len(exif) > LONGEST - len(EXIF_HEADER):
        raise ValueError("has no room for a description: its EXIF would be longer than a JPEG's may be")
    _, *others = [segment.content for segment in segments(photo) if segment.is_a(EXIF)]
    return _with_segments(photo, EXIF, [EXIF_HEADER + exif, *others], behind=())


def photoshop_of(photo: bytes) -> list[bytes]:
    """The Photoshop segments, which hold IPTC among other things and may be one long block cut in pieces."""
    return [segment.content for segment in segments(photo) if segment.is_a(PHOTOSHOP)]


def with_photoshop(photo: bytes, contents: Sequence[bytes]) -> bytes:
    """The photo with these Photoshop segments in place of its own."""
    return _with_segments(photo, PHOTOSHOP, contents, behind=(EXIF, XMP))


def segments(photo: bytes) -> list[Segment]:
    """All segments before the scan, in order."""
    found: list[Segment] = []
    place = 2
    while header := HEADER.match(photo, place):
        marker, length = header[1][0], int.from_bytes(header[2], "big")
        if marker == SCAN:
            return found
        end = header.end() - 2 + length
        if length < 2 or end > len(photo):
            break
        found.append(Segment(marker, photo[header.end() : end], place, end))
        place = end
    raise ValueError(f"is a damaged JPEG: at byte {place:,} there is no segment")


def segment(marker: int, content: bytes) -> bytes:
    """A segment with its header."""
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def _with_segments(
    photo: bytes, kind: tuple[int, bytes], contents: Sequence[bytes], *, behind: Sequence[tuple[int, bytes]]
) -> bytes:
    """The photo with other segments of a kind: where the old ones were, or `behind` those that readers expect first."""
    there = segments(photo)
    old = [segment for segment in there if segment.is_a(kind)]
    place = old[0].start if old else 2
    if not old:
        for earlier in there:
            if earlier.marker != APP0 and not any(earlier.is_a(first) for first in behind):
                break
            place = earlier.end
    last_change = old[-1].start if old else place
    if any(segment.is_a(MORE_PICTURES) and segment.start < last_change for segment in there):
        # A multi-picture file counts bytes from that segment to its second picture.
        raise ValueError("holds several pictures, and its metadata can't be changed without losing them")
    pieces = [photo[:place], *(segment(kind[0], content) for content in contents)]
    for gone in old:
        pieces.append(photo[place : gone.start])
        place = gone.end
    return b"".join((*pieces, photo[place:]))
