"""The caption in a JPEG's IPTC: dataset 2:120 of IIM 4.2, in resource 0x0404 of the Photoshop segments.

This module writes it, and not exiv2, which rewrites the other datasets (13:27:23 becomes 13:27:23+00:00), refuses
resources that ImageReady leaves, and drops the digest by which readers see that XMP and IPTC belong together.

Every problem is a ValueError whose text follows the photo's name: "a.jpg" "has IPTC that can't be read".
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from showtell.results.metadata import jpeg

PREFIX = jpeg.PHOTOSHOP[1]
IPTC, IPTC_DIGEST = 0x0404, 0x0425
# Type, number, name (a byte of length, filled to an even number of bytes), length of the content.
RESOURCE = re.compile(rb"(8BIM|8B64|AgHg|DCSR|MeSa|PHUT)(..)", re.DOTALL)
CHARACTER_SET, CAPTION = (1, 90), (2, 120)
UTF8 = b"\x1b%G"  # ISO 2022
LONGEST = 2000  # bytes of a caption


@dataclass(frozen=True)
class Resource:
    """A Photoshop resource whose content is `block[start:end]`; the next begins at `after`."""

    number: int
    start: int
    end: int
    after: int


@dataclass(frozen=True)
class Dataset:
    """An IPTC field; in `iptc[start:end]` with its header."""

    number: tuple[int, int]
    content: bytes
    start: int
    end: int


def caption_of(photoshop: Sequence[bytes]) -> str:
    """The caption in a JPEG's Photoshop segments; empty if there is none."""
    iptc = _iptc_of(_block(photoshop))
    captions = [dataset.content for dataset in _datasets(iptc) if dataset.number == CAPTION]
    return " ".join(caption.decode("utf-8", "replace") for caption in captions).replace("\0", " ").strip()


def with_caption(photoshop: Sequence[bytes], caption: str) -> list[bytes]:
    """A JPEG's Photoshop segments, or new ones, with this caption, in UTF-8 if the other fields allow it."""
    block = _block(photoshop)
    old = _iptc_of(block)
    others = [dataset for dataset in _datasets(old) if dataset.number not in (CAPTION, CHARACTER_SET)]
    declared = [dataset.content for dataset in _datasets(old) if dataset.number == CHARACTER_SET]
    new = old
    if all(dataset.content.isascii() for dataset in others if dataset.number[0] == CAPTION[0]):
        new = _with_dataset(new, CHARACTER_SET, UTF8)
    elif declared != [UTF8] and not caption.isascii():
        raise ValueError("has IPTC fields in an older character set than UTF-8, which can't hold this description")
    new = _with_dataset(new, CAPTION, caption.encode()[:LONGEST].decode("utf-8", "ignore").encode())
    digest = next((r for r in _resources(block) if r.number == IPTC_DIGEST), None)
    in_step = digest is not None and (not old or block[digest.start : digest.end] == _digest(old))
    block = _with_resource(block, IPTC, new)
    if in_step:
        block = _with_resource(block, IPTC_DIGEST, _digest(new))
    size = jpeg.LONGEST - len(PREFIX)
    return [PREFIX + block[place : place + size] for place in range(0, len(block), size)]


def _block(photoshop: Sequence[bytes]) -> bytes:
    """The resources. If they are longer than a segment, they are cut anywhere."""
    return b"".join(content.removeprefix(PREFIX) for content in photoshop)


def _resources(block: bytes) -> Iterator[Resource]:
    place = 0
    while block[place:].strip(b"\0"):  # zeros after the last one are padding
        header = RESOURCE.match(block, place)
        name_end = place + 7 + int.from_bytes(block[place + 6 : place + 7], "big")
        start = name_end + (name_end - place) % 2 + 4
        end = start + int.from_bytes(block[start - 4 : start], "big")
        if header is None or end > len(block):
            raise ValueError("has Photoshop metadata that can't be read, and IPTC is among them")
        after = end + (end - start) % 2
        yield Resource(int.from_bytes(header[2], "big"), start, end, after)
        place = after


def _with_resource(block: bytes, number: int, content: bytes) -> bytes:
    """The block with a resource's content replaced, or with a new resource at its end."""
    written = len(content).to_bytes(4, "big") + content + bytes(len(content) % 2)
    end = 0
    for resource in _resources(block):
        if resource.number == number:
            return block[: resource.start - 4] + written + block[resource.after :]
        end = resource.after
    return block[:end].ljust(end, b"\0") + b"8BIM" + number.to_bytes(2, "big") + b"\0\0" + written + block[end:]


def _iptc_of(block: bytes) -> bytes:
    return next((block[r.start : r.end] for r in _resources(block) if r.number == IPTC), b"")


def _datasets(iptc: bytes) -> Iterator[Dataset]:
    place = 0
    while iptc[place:].strip(b"\0"):
        length, start = int.from_bytes(iptc[place + 3 : place + 5], "big"), place + 5
        if length & 0x8000:  # an extended dataset: so many bytes of length follow
            start += length & 0x7FFF
            length = int.from_bytes(iptc[place + 5 : start], "big")
        end = start + length
        if iptc[place] != 0x1C or start > len(iptc) or end > len(iptc):
            raise ValueError("has IPTC that can't be read")
        yield Dataset((iptc[place + 1], iptc[place + 2]), iptc[start:end], place, end)
        place = end


def _with_dataset(iptc: bytes, number: tuple[int, int], content: bytes) -> bytes:
    """The fields with one replaced, or inserted before those of higher numbers; a repeated field becomes one."""
    written = bytes((0x1C, *number)) + len(content).to_bytes(2, "big") + content
    datasets = list(_datasets(iptc))
    place = next((i for i, dataset in enumerate(datasets) if dataset.number >= number), len(datasets))
    kept = [b"" if dataset.number == number else iptc[dataset.start : dataset.end] for dataset in datasets]
    return b"".join((*kept[:place], written, *kept[place:]))


def _digest(iptc: bytes) -> bytes:
    return hashlib.md5(iptc, usedforsecurity=False).digest()
