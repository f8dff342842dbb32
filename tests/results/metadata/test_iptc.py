"""IPTC: the caption changes, every other dataset and every other Photoshop resource stays byte for byte."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.results.metadata import iptc

UTF8 = (1, 90, b"\x1b%G")
BEGINNING = b"Photoshop 3.0\0"


def dataset(record: int, number: int, content: bytes) -> bytes:
    return bytes((0x1C, record, number)) + len(content).to_bytes(2, "big") + content


def resource(number: int, content: bytes, name: bytes = b"", kind: bytes = b"8BIM") -> bytes:
    name = bytes([len(name)]) + name
    name += bytes(len(name) % 2)
    return kind + number.to_bytes(2, "big") + name + len(content).to_bytes(4, "big") + content + bytes(len(content) % 2)


def segments(*datasets: tuple[int, int, bytes]) -> list[bytes]:
    return [BEGINNING + resource(0x0404, b"".join(dataset(*each) for each in datasets))]


def test_new():
    assert iptc.with_caption([], "é") == segments(UTF8, (2, 120, "é".encode()))
    assert iptc.caption_of([]) == ""


def test_other_fields_stay():
    """exiv2 writes 13:27:23 anew as 13:27:23+00:00, and puts other records' fields into another order."""
    before = segments(
        (1, 0, b"\0\4"), (2, 5, b"T"), (2, 25, b"a"), (2, 25, b"b"), (2, 60, b"132723"), (8, 10, b"x"), (3, 1, b"")
    )
    after = segments(
        (1, 0, b"\0\4"), UTF8, (2, 5, b"T"), (2, 25, b"a"), (2, 25, b"b"), (2, 60, b"132723"),
        (2, 120, b"dog"), (8, 10, b"x"), (3, 1, b""),
    )  # fmt: skip
    assert iptc.with_caption(before, "dog") == after
    assert iptc.with_caption(after, "cat") == [after[0].replace(b"dog", b"cat")]
    assert iptc.caption_of(after) == "dog"


def test_several_captions_become_one():
    assert iptc.with_caption(segments(UTF8, (2, 120, b"a"), (2, 122, b"me"), (2, 120, b"b")), "c") == segments(
        UTF8, (2, 120, b"c"), (2, 122, b"me")
    )


def test_older_character_sets():
    """Declaring UTF-8 would turn another field's Latin-1 into nonsense; ASCII is the same in both."""
    latin1 = segments((2, 5, b"caf\xe9"))
    assert iptc.with_caption(latin1, "dog") == segments((2, 5, b"caf\xe9"), (2, 120, b"dog"))
    with pytest.raises(ValueError, match="older character set than UTF-8, which can't hold this description"):
        iptc.with_caption(latin1, "Käfer")
    utf8 = segments(UTF8, (2, 5, "café".encode()))
    assert iptc.with_caption(utf8, "Käfer") == segments(UTF8, (2, 5, "café".encode()), (2, 120, "Käfer".encode()))


def test_other_resources_stay():
    """ImageReady's have another type; names have odd lengths; the last may end in filling."""
    block = resource(0x03ED, b"12345") + resource(7000, b"x", b"Path", b"MeSa") + resource(2000, b"y", b"odd")
    fields = dataset(2, 5, b"T")
    (after,) = iptc.with_caption([BEGINNING + block + resource(0x0404, fields) + bytes(3)], "dog")
    assert after == BEGINNING + block + resource(0x0404, dataset(*UTF8) + fields + dataset(2, 120, b"dog")) + bytes(3)
    (added,) = iptc.with_caption([BEGINNING + block + bytes(3)], "dog")
    assert added == BEGINNING + block + resource(0x0404, dataset(*UTF8) + dataset(2, 120, b"dog")) + bytes(3)


@pytest.mark.parametrize(("digest_of", "follows"), [("its", True), ("another's", False)])
def test_digest(digest_of, follows):
    """By the digest readers see whether XMP and IPTC were written together: true stays true, false stays false."""
    fields = dataset(2, 5, b"T")
    old = hashlib.md5(fields if digest_of == "its" else b"").digest()
    (after,) = iptc.with_caption([BEGINNING + resource(0x0404, fields) + resource(0x0425, old)], "dog")
    new = hashlib.md5(dataset(*UTF8) + fields + dataset(2, 120, b"dog")).digest()
    assert after.endswith(resource(0x0425, new if follows else old))


def test_a_long_block_is_cut_into_segments():
    (whole,) = segments((2, 5, b"T"))
    long = [
        whole + resource(1, bytes(range(256)) * 400)[:60000],
        BEGINNING + resource(1, bytes(range(256)) * 400)[60000:],
    ]
    after = iptc.with_caption(long, "dog")
    assert [len(content) <= 65533 for content in after] == [True, True]
    assert iptc.caption_of(after) == "dog"
    assert iptc.with_caption(after, "dog") == after


@pytest.mark.parametrize(
    "block", [b"8BIM\4\4\0\0\0\0\0\x99", b"XXXX\4\4\0\0\0\0\0\0", resource(0x0404, b"\x1c\2\5\0\x99x")]
)
def test_damaged(block):
    with pytest.raises(ValueError, match="that can't be read"):
        iptc.with_caption([BEGINNING + block], "dog")


@given(st.binary(max_size=40))
def test_any_bytes(block):
    """A damaged file is refused in words, not with an IndexError."""
    for content in (BEGINNING + block, BEGINNING + resource(0x0404, block)):
        try:
            after = iptc.with_caption([content], "dog")
        except ValueError as error:
            assert "has " in str(error)  # noqa: PT017
        else:
            assert iptc.caption_of(after) == "dog"
