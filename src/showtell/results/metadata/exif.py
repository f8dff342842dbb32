"""The description in EXIF: the field ImageDescription of its first directory (TIFF 6.0, section 2).

Only an existing field is written, and nothing else moves: a camera's own notes count bytes from the beginning. A text
that is too long for the place of the old one goes to the end.
"""

from typing import Literal

IMAGE_DESCRIPTION = 0x010E
ASCII, ENTRY = 2, 12  # a type; bytes of a field: tag, type, number of values, their place or up to 4 bytes of them
ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


def with_description(exif: bytes, description: str) -> bytes:
    """EXIF with this description, if it has a field for one; damaged EXIF stays as it is."""
    order = ORDERS.get(exif[:4])
    if order is None:
        return exif

    def number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size], order)

    first = number(4, 4) + 2
    entries = range(first, first + ENTRY * number(first - 2, 2), ENTRY)
    entry = next((place for place in entries if number(place, 2) == IMAGE_DESCRIPTION), None)
    if entry is None or entry + ENTRY > len(exif):
        return exif
    text = description.encode() + b"\0"
    room, place = number(entry + 4, 4), number(entry + 8, 4)
    content = bytearray(exif)
    if len(text) <= 4:
        value = text.ljust(4, b"\0")
    elif len(text) <= room and number(entry + 2, 2) == ASCII and place + room <= len(exif):
        content[place : place + room] = text.ljust(room, b"\0")
        value = place.to_bytes(4, order)
    else:
        content += bytes(len(content) % 2)
        value = len(content).to_bytes(4, order)
        content += text
    content[entry + 2 : entry + ENTRY] = ASCII.to_bytes(2, order) + len(text).to_bytes(4, order) + value
    return bytes(content)
