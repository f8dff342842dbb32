"""Descriptions in photo files: read back by Pillow, with pixels and all other metadata as they were."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, IptcImagePlugin, PngImagePlugin

from showtell.errors import ImageError
from showtell.results.metadata import describe_photo, description_of, jpeg, with_description
from showtell.results.metadata.exif import with_description as exif_with_description

pytest.importorskip("exiv2", reason="the extra 'metadata' is not installed")

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:my="http://my.org/"'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" xmp:Rating="4"><my:own rdf:parseType="Resource"><my:deep>7</my:deep>'
    b'</my:own><dc:description><rdf:Alt><rdf:li xml:lang="de">ein Hund</rdf:li></rdf:Alt></dc:description>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
TEXT = 'a "dög" & <cat>'


def exif(description: str = "") -> bytes:
    fields = Image.Exif()
    fields[0x0110] = "Camera"
    if description:
        fields[0x010E] = description
    return fields.tobytes()


def photo(format_: str, **options) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(80, 176, (30, 40), np.uint8)  # the same in every worker of the tests
    image = Image.fromarray(noise).convert(options.pop("mode", "RGB"))
    image.save(file, format_, **options)
    return file.getvalue()


PHOTOS = {
    "plain JPEG": photo("JPEG"),
    "JPEG with all": photo("JPEG", exif=exif(), icc_profile=b"icc" * 30000, comment=b"odd", xmp=XMP, progressive=True),
    "JPEG with filling": photo("JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1) + b"behind the end",
    "plain PNG": photo("PNG"),
    "PNG with all": photo("PNG", exif=exif(), icc_profile=b"icc" * 300),
    "plain lossy WebP": photo("WEBP"),
    "plain lossless WebP": photo("WEBP", lossless=True, mode="RGBA"),
    "WebP with all": photo("WEBP", exif=exif(), icc_profile=b"icc" * 101, xmp=XMP + b" " * (len(XMP) % 2 + 1)),
    "moving WebP": photo("WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")]),
}
DESCRIBED = PngImagePlugin.PngInfo()
DESCRIBED.add_itxt("Description", "my aunt")
FORMATS = pytest.mark.parametrize("before", PHOTOS.values(), ids=PHOTOS)


def opened(photo: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(photo))
    image.load()
    return image


@FORMATS
def test_nothing_else_changes(before):
    """Taking the XMP, IPTC and WebP's flags out of both leaves the same bytes: pixels, EXIF, colours, comments."""
    after = with_description(before, TEXT)
    assert description_of(after) == TEXT
    assert rest_of(after) == rest_of(before)
    assert with_description(after, TEXT) == after
    old, new = opened(before), opened(after)
    assert (new.mode, new.size, new.tobytes()) == (old.mode, old.size, old.tobytes())
    for name in ("exif", "icc_profile", "comment", "dpi", "loop"):
        assert new.info.get(name) == old.info.get(name)


def rest_of(photo: bytes) -> list[bytes]:
    """The parts of a file that are not XMP or IPTC: read here, and not by the code under test."""
    if photo[:2] == b"\xff\xd8":
        parts, place = [], 2
        while photo[place + 1] != 0xDA:
            if photo[place + 1] == 0xFF:
                parts.append(b"filling")
                place += 1
                continue
            end = place + 2 + int.from_bytes(photo[place + 2 : place + 4], "big")
            parts.append(photo[place:end])
            place = end
        ours = (b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0")
        return [*(part for part in parts if not part[4:].startswith(ours)), photo[place:]]
    if photo[:4] == b"RIFF":
        assert int.from_bytes(photo[4:8], "little") == len(photo) - 8
        parts, place = [], 12
        while place < len(photo):
            end = place + 8 + int.from_bytes(photo[place + 4 : place + 8], "little")
            parts.append(photo[place:end])
            place = end + end % 2
        return [part for part in parts if part[:4] not in (b"XMP ", b"VP8X")]
    parts, place = [], 8
    while place < len(photo):
        end = place + 12 + int.from_bytes(photo[place : place + 4], "big")
        assert photo[end - 4 : end] == zlib.crc32(photo[place + 4 : end - 4]).to_bytes(4, "big")
        parts.append(photo[place:end])
        place = end
    return [part for part in parts if not part[8:].startswith(b"XML:com.adobe.xmp\0")]


def test_pillow_reads_what_was_written():
    image = opened(with_description(PHOTOS["JPEG with all"], TEXT))
    fields = IptcImagePlugin.getiptcinfo(image)
    assert (fields[1, 90], fields[2, 120]) == (b"\x1b%G", TEXT.encode())
    for name in ("JPEG with all", "plain PNG", "plain lossy WebP", "moving WebP"):
        packet = opened(with_description(PHOTOS[name], TEXT)).info["xmp"]
        packet = packet if isinstance(packet, str) else packet.decode()
        assert '<rdf:li xml:lang="x-default">a "dög" &amp; &lt;cat&gt;</rdf:li>' in packet


def test_other_xmp_stays():
    packet = jpeg.xmp_of(with_description(PHOTOS["JPEG with all"], TEXT)).decode()
    assert 'xmp:Rating="4"' in packet
    assert "7" in packet[packet.index("my:own") : packet.rindex("my:own")] + packet[packet.index("my:deep") :][:20]
    assert "ein Hund" not in packet  # speaks of the description that was replaced


def test_extended_webp_says_what_it_is():
    file = io.BytesIO()
    Image.new("RGBA", (40, 30), (255, 0, 0, 128)).save(file, "WEBP", lossless=True)
    after = with_description(file.getvalue(), TEXT)
    assert after[12:16] == b"VP8X"
    assert (after[20], after[24:27], after[27:30]) == (0x14, b"\x27\0\0", b"\x1d\0\0")  # alpha and XMP; 40 x 30


def test_packed_xmp_of_a_png():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    before = photo("PNG", pnginfo=info)
    assert description_of(before) == "ein Hund"
    assert rest_of(with_description(before, TEXT)) == rest_of(before)


OLD = ("old words, which are many and longer than the new", "old", "   ", "SONY DSC")
WITH_XMP = XMP.replace(b"dc:desc", b"tiff:ImageDesc").replace(
    b"xmlns:my", b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:my'
)


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_places_that_hold_a_description_agree(format_, old, order):
    """Viewers show the one or the other: a replaced description stayed in EXIF, and was shown."""
    fields = Image.Exif()
    fields.endian = order
    fields[0x010E], fields[0x0110], fields.get_ifd(0x8769)[0x9003] = old, "Camera", "2024:01:02 03:04:05"
    options = {}
    if format_ == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Description", old, zip=len(old) > 9)
        options["pnginfo"].add_text("Author", "me")
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", WITH_XMP.decode())
    before = photo(format_, exif=fields.tobytes(), xmp=WITH_XMP, **options)
    for text in (TEXT, "cat", "a longer one: " + TEXT):
        after = opened(with_description(before, text))
        read = after.getexif()
        assert read[0x010E].encode("latin-1").decode().rstrip("\0") == text
        assert (read[0x0110], read.get_ifd(0x8769)[0x9003]) == ("Camera", "2024:01:02 03:04:05")
        assert after.tobytes() == opened(before).tobytes()
        packet = after.info["xmp"]
        assert (packet.encode() if isinstance(packet, str) else packet).count(b"x-default") == 2
        if format_ == "PNG":
            assert (after.text["Description"], after.text["Author"]) == (text, "me")
        before = with_description(before, text)
        assert description_of(before) == text


def test_a_text_that_fits_moves_nothing():
    before = photo("JPEG", exif=exif("x" * 50))
    old, new = jpeg.exif_of(before), jpeg.exif_of(with_description(before, TEXT))
    assert len(new) == len(old)
    assert b"Camera" in new


def test_exif_that_is_full():
    before = photo("JPEG", exif=exif("old"))
    full = jpeg.exif_of(before).ljust(jpeg.LONGEST - 6, b"\0")
    before = jpeg.with_exif(before, full)
    assert description_of(with_description(before, "new")) == "new"
    with pytest.raises(ImageError, match="no room for a description: its EXIF"):
        with_description(before, TEXT)


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_damaged_exif_is_not_made_worse(damage, order):
    data = order + damage
    after = exif_with_description(data, "new")
    assert len(after) <= len(data) + 5


@pytest.mark.parametrize(
    ("before", "found"),
    [
        (PHOTOS["plain JPEG"], ""),
        (photo("JPEG", xmp=WITH_XMP), "ein Hund"),
        (photo("PNG", pnginfo=DESCRIBED), "my aunt"),
        (PHOTOS["JPEG with all"], "ein Hund"),
        (PHOTOS["WebP with all"], "ein Hund"),
        (photo("JPEG", exif=exif("my aunt")), "my aunt"),
        (photo("PNG", exif=exif("my aunt")), "my aunt"),
        (photo("JPEG", exif=exif("OLYMPUS DIGITAL CAMERA         ")), ""),  # what the camera says of each photo
        (photo("JPEG", exif=exif("   ")), ""),
        (
            jpeg.with_photoshop(PHOTOS["plain JPEG"], [b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\x08\x1c\x02\x78\0\3dog"]),
            "dog",
        ),
    ],
)
def test_description_of(before, found):
    assert description_of(before) == found


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (b"GIF89a", "is neither JPEG, PNG nor WebP; only these can hold a description."),
        (b"", "is neither JPEG, PNG nor WebP"),
        (PHOTOS["plain JPEG"][:30], "is a damaged JPEG: at byte 20 there is no segment."),
        (PHOTOS["plain PNG"][:40], "is a damaged PNG: at byte 33 there is no chunk."),
        (PHOTOS["plain lossy WebP"][:-2], "is a damaged WebP: its length is not the one that its first bytes give."),
        (b"RIFF\4\0\0\0WEBP", "is a damaged WebP: it is empty."),
        (b"RIFF\x0e\0\0\0WEBPVP8 \x09\0\0\0xx", "is a damaged WebP: the chunk at byte 12 is cut off."),
        (b"RIFF\x0e\0\0\0WEBPVP8 \2\0\0\0xx", "is a damaged WebP: it does not begin with a picture."),
        (photo("JPEG", xmp=b"<x:xmpmeta"), "has XMP that can't be read."),
        (photo("JPEG", xmp=b"\xff\xff"), "has XMP that can't be read."),
        (
            photo("JPEG", xmp=XMP.replace(b">7<", b">" + b"7" * (65400 - len(XMP)) + b"<")),
            "has no room for a description",
        ),
        (
            PHOTOS["plain PNG"][:33]
            + b"\0\0\0\x18iTXtXML:com.adobe.xmp\0\1\0\0\0zz\0\0\0\0"
            + PHOTOS["plain PNG"][33:],
            "has text that can't be unpacked.",
        ),
    ],
)
def test_refused(tmp_path, before, message):
    """One sentence that names the file, and the file as it was."""
    path = tmp_path / "photo"
    path.write_bytes(before)
    with pytest.raises(ImageError) as error:
        describe_photo(path, TEXT, replace=True)
    assert str(error.value).startswith(f"{path} {message}")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["photo"]  # noqa: PTH208


def test_several_pictures_in_a_file():
    """A phone's depth map or HDR layer is found by an offset, which metadata behind it would make wrong."""
    before = photo("MPO", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])
    image = opened(with_description(before, TEXT))
    image.seek(1)
    assert max(abs(a - b) for a, b in zip(image.convert("RGB").getpixel((5, 5)), (255, 0, 0), strict=True)) < 5
    last = jpeg.segments(before)[-1].end
    behind = before[:last] + jpeg.segment(*jpeg.XMP) + before[last:]
    with pytest.raises(
        ImageError, match="holds several pictures, and its metadata can't be changed without losing them"
    ):
        with_description(behind, TEXT)


def test_original_is_kept_once(tmp_path):
    """The second run's `photo.jpg` is not the original any more."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTOS["plain JPEG"])
    assert describe_photo(path, "first")
    assert not describe_photo(path, "second")
    assert describe_photo(path, "third", replace=True)
    assert description_of(path.read_bytes()) == "third"
    assert (tmp_path / "photo.jpg_original").read_bytes() == PHOTOS["plain JPEG"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photo.jpg", "photo.jpg_original"]


def test_no_original(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTOS["plain JPEG"])
    assert describe_photo(path, TEXT, keep_original=False)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_that_is_gone():
    with pytest.raises(ImageError, match=r"^nowhere.jpg can't be given a description: No such file or directory.$"):
        describe_photo(Path("nowhere.jpg"), TEXT)
