"""Every kind of file becomes the right pixels, or one ImageError that names it."""

import io
import struct
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from showtell.errors import ImageError
from showtell.images.decode import Preprocessing, normalise, prepare, read_image, resize

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green above, blue and white below: any turn or mix-up of channels shows."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def assert_quarters(pixels: np.ndarray, width: int = 64, height: int = 32, tolerance: int = 6) -> None:
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    x, y = width // 4, height // 4
    corners = [pixels[y, x], pixels[y, -x], pixels[-y, x], pixels[-y, -x]]
    np.testing.assert_allclose(np.array(corners, int), [RED, GREEN, BLUE, WHITE], atol=tolerance)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("PNG", {"interlace": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95}),
        ("JPEG2000", {}),
        ("PPM", {}),
        ("ICO", {"sizes": [(64, 32)]}),
        ("QOI", {}),
    ],
)
def test_formats(format_: str, options: dict[str, Any]) -> None:
    assert_quarters(read_image(saved(quarters(), format_, **options)), tolerance=12)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"])
def test_pillow_images_of_any_mode_and_left_as_they_were(mode: str) -> None:
    image = quarters().convert(mode)
    assert_quarters(read_image(image))
    assert image.mode == mode


def test_cmyk_jpeg_is_not_a_negative() -> None:
    assert_quarters(read_image(saved(quarters().convert("CMYK"), "JPEG", quality=95)), tolerance=12)


def test_heif() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(quarters(128, 64)).save(buffer, quality=95)
    assert_quarters(read_image(buffer.getvalue()), 128, 64, tolerance=16)
    assert "HEIF" not in Image.OPEN, "reading one file must not change Pillow for the whole process"


def test_heif_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(ImageError, match=r"phone\.heic is HEIF.*pip install 'showtell\[heif\]'"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation: int, format_: str) -> None:
    """A phone's upright photo must not be captioned lying on its side."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that a camera's turn amounts to
    stored = quarters() if orientation == 1 else quarters().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if format_ == "WEBP" else {"quality": 95}
    assert_quarters(read_image(saved(stored, format_, exif=exif, **options)), tolerance=12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_image() -> None:
    for broken in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert_quarters(read_image(saved(quarters(), "JPEG", quality=95, exif=broken)), tolerance=12)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    data = saved(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(read_image(data)[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(values), "TIFF"))[0, :, 2], [0, 1, 128, 255])


def test_wide_and_float_tiffs_use_their_whole_range() -> None:
    wide = np.array([[-1000, 0, 200_000]], np.int32)
    assert read_image(saved(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 1, 255]
    narrow = np.array([[0, 65535]], np.int32)
    assert read_image(saved(Image.fromarray(narrow), "TIFF"))[0, :, 0].tolist() == [0, 255]
    unit = np.array([[0.0, 0.5, np.nan]], np.float32)
    assert read_image(saved(Image.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 0]
    far = np.array([[-5.0, 0.0, 5.0]], np.float32)
    assert read_image(saved(Image.fromarray(far), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    flat = np.full((1, 2), 7.0, np.float32)
    assert read_image(saved(Image.fromarray(flat), "TIFF"))[0, :, 0].tolist() == [0, 0]


def test_transparency_is_shown_on_white() -> None:
    """Transparent pixels often hold black: a logo must not become a black square."""
    clear, half = (0, 0, 0, 0), (0, 0, 0, 128)
    image = Image.new("RGBA", (2, 1), clear)
    image.putpixel((1, 0), half)
    for data in (saved(image, "PNG"), saved(image, "WEBP", lossless=True, exact=True)):
        assert read_image(data)[0].tolist() == [[255] * 3, [127] * 3]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert read_image(saved(grey, "PNG"))[0].tolist() == [[255] * 3]


def test_transparent_colour_of_palette_grey_and_rgb_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert read_image(saved(palette, "PNG", transparency=0))[0].tolist() == [[255] * 3, [200, 100, 50]]
    assert read_image(saved(palette, "GIF", transparency=0))[0, 0].tolist() == [255] * 3
    assert read_image(saved(Image.new("L", (1, 1), 7), "PNG", transparency=7))[0, 0].tolist() == [255] * 3
    rgb = Image.new("RGB", (1, 1), (7, 8, 9))
    assert read_image(saved(rgb, "PNG", transparency=(7, 8, 9)))[0, 0].tolist() == [255] * 3


def test_grey_and_bilevel() -> None:
    assert read_image(saved(Image.new("L", (3, 2), 77), "PNG")).tolist() == [[[77] * 3] * 3] * 2
    assert read_image(saved(Image.new("1", (3, 2), 1), "PNG")).tolist() == [[[255] * 3] * 3] * 2


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame(format_: str) -> None:
    frames = [quarters(), Image.new("RGB", (64, 32), "black")]
    options: dict[str, Any] = {"lossless": True} if format_ == "WEBP" else {}
    data = saved(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert_quarters(read_image(data))


def test_sources_agree(tmp_path: Path) -> None:
    data = saved(quarters(), "PNG")
    path = tmp_path / "ünïcode näme.png"
    path.write_bytes(data)
    want = read_image(data)
    with path.open("rb") as file:
        for source in (path, str(path), file, Image.open(path), np.array(quarters())):
            np.testing.assert_array_equal(read_image(source), want)
    prefixed = io.BytesIO(b"header" + data)
    prefixed.seek(6)
    np.testing.assert_array_equal(read_image(prefixed), want)


def test_a_pipe_that_cannot_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert_quarters(read_image(Pipe(saved(quarters(), "PNG"))))


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (np.full((2, 3), 9, np.uint8), 9),
        (np.full((2, 3, 1), 9, np.uint8), 9),
        (np.full((2, 3, 3), 9, np.uint8), 9),
        (np.full((2, 3), 65535, np.uint16), 255),
        (np.full((2, 3, 3), 0.5), 128),
        (np.ones((2, 3), bool), 255),
        (np.zeros((2, 3, 4), np.uint8), 255),
        (np.full((3, 2, 3), 9, np.uint8).transpose(1, 0, 2), 9),
    ],
)
def test_arrays(array: np.ndarray, want: int) -> None:
    pixels = read_image(array)
    assert pixels.shape == (2, 3, 3)
    assert pixels.flags.c_contiguous
    assert (pixels == want).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 5), np.uint8), r"shape \(2, 3, 5\).*\[H, W\]"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.zeros((0, 3, 3), np.uint8), r"shape \(0, 3, 3\)"),
        (np.full((2, 3), 200.0), "values from 200 to 200. Floats must be 0 to 1"),
        (np.full((2, 3), np.nan), "Floats must be 0 to 1"),
        (np.zeros((2, 3), np.int64), "int64 has a type.*uint8"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_reading_smaller_keeps_the_shorter_side() -> None:
    data = saved(quarters(1600, 800), "JPEG", quality=95)
    pixels = read_image(data, at_least=224)
    assert pixels.shape == (400, 800, 3), "half size: a quarter would be 200 high"
    assert_quarters(pixels, 800, 400, tolerance=12)
    assert read_image(data, at_least=100).shape == (100, 200, 3)
    assert read_image(data, at_least=801).shape == (800, 1600, 3)
    assert read_image(saved(quarters(1600, 800), "PNG"), at_least=100).shape == (800, 1600, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    """Also where Pillow would warn (89 million) or refuse (179 million) by a limit for the process."""
    path = tmp_path / "bomb.png"
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (10_001, 20_000, 60_000):
            path.write_bytes(png_header(side, side))
            with pytest.raises(
                ImageError, match=rf"bomb\.png has {side} x {side} = .*limit is 100,000,000.*max_pixels"
            ):
                read_image(path)
        path.write_bytes(png_header(9_500, 10_000))  # allowed, and Pillow would warn: it is only cut off
        with pytest.raises(ImageError, match=r"cut off|damaged"):
            read_image(path)
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="limit is 2,000"):
        read_image(quarters(), max_pixels=2_000)
    assert_quarters(read_image(saved(quarters(), "PNG"), max_pixels=64 * 32))


@pytest.mark.parametrize(("format_", "options"), [("JPEG", {}), ("MPO", {"save_all": True, "append_images": []})])
def test_a_jpeg_over_the_limit_is_read_at_a_fraction(format_: str, options: dict[str, Any]) -> None:
    """Phones make photos of 108 and 200 megapixels, some with a second picture behind; at 1/8, little is held."""
    if options:
        options["append_images"] = [quarters()]
    data = saved(quarters(1600, 800), format_, quality=95, **options)
    assert read_image(data, at_least=100, max_pixels=200 * 100).shape == (100, 200, 3)
    with pytest.raises(ImageError, match=r"1600 x 800 = .* baseline JPEG"):
        read_image(data, at_least=100, max_pixels=200 * 100 - 1)
    with pytest.raises(ImageError, match=r"Shrink the image, or raise max_pixels\."):
        read_image(data, max_pixels=200 * 100)


@pytest.mark.parametrize("kind", ["progressive", "a scan for each colour", "another scan's header in a comment"])
def test_a_jpeg_that_is_held_whole_is_not_read_at_a_fraction(kind: str) -> None:
    """Its decoder holds the coefficients of all pixels before it makes the first of the small picture."""
    data = saved(quarters(1600, 800), "JPEG", quality=95, progressive=kind == "progressive")
    if kind != "progressive":
        scan = data.index(b"\xff\xda\x00\x0c\x03")
        comment = b"\xff\xff\xfe\x00\x10" + 3 * b"\xff\xda\x00\x0c\x03" if kind.startswith("another") else b""
        data = (
            data[:2] + comment + data[2:scan] + b"\xff\xda\x00\x08\x01" + data[scan + 5 : scan + 7] + data[scan + 11 :]
        )
    with pytest.raises(ImageError, match="the limit is 1,000,000"):
        read_image(data, at_least=100, max_pixels=1_000_000)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


LARGE = bytes(2_000_000)
BROKEN = chunk(b"tEXt", b"a\0b")[:-4] + bytes(4)


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE)),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(LARGE)),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(LARGE)),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 70,
        chunk(b"zTXt", b"a\0\7"),
        BROKEN,
    ],
    ids=["text", "international text", "profile", "many texts", "unknown compression", "wrong check sum"],
)
def test_a_png_with_metadata_that_pillow_refuses(metadata: bytes, place: int, tmp_path: Path) -> None:
    """Its pixels are sound, and of its metadata nothing is needed."""
    data = saved(quarters(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data[:place] + metadata + data[place:])
    assert_quarters(read_image(path))
    assert_quarters(read_image(path.read_bytes()))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_truncated_files_are_one_error(format_: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = saved(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), format_)
    path = tmp_path / "half.img"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"half\.img is (cut off|damaged)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_truncated_jpeg_says_so() -> None:
    data = saved(quarters(640, 480), "JPEG", quality=95)
    with pytest.raises(ImageError, match="Image of 900 bytes is cut off"):
        read_image(data[:900])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "drawing.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "is not an image that showtell can read.*JPEG, PNG",
        ),
        ("notes.jpg", b"A dog runs.\n", "is not an image"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
        ("nothing.png", b"", "is empty"),
        ("letter.ppm", b"P", "damaged|not an image"),
        ("noise.png", b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "damaged|cut off"),
        ("movie.mp4", struct.pack(">I", 24) + b"ftypisom\0\0\0\0mp41mp42" + bytes(40), "is not an image"),
    ],
)
def test_files_that_are_no_image(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="can't be opened: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"gone\.jpg can't be opened: No such file"):
        read_image(tmp_path / "gone.jpg")


@given(
    st.binary(max_size=300),
    st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "QOI", "ICO"]),
)
def test_damaged_files_never_raise_anything_else(damage: bytes, format_: str) -> None:
    data = bytearray(saved(quarters(16, 16), format_))
    for number, value in enumerate(damage):
        data[(number * 37 + value) % len(data)] = value
    with warnings.catch_warnings(), suppress(ImageError):
        warnings.simplefilter("ignore")  # Pillow's, about odd tags
        assert read_image(bytes(data), max_pixels=1_000_000).ndim == 3


def test_squares_show_the_middle() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 90:210] = 255  # bicubic looks a few pixels over the edge
    assert (resize(image, Preprocessing(size=32)) == 255).all()
    squashed = resize(image, Preprocessing(size=30, resize="squash"))
    assert squashed.shape == (30, 30, 3)
    assert (squashed[:, 12:18] == 255).all()
    assert (squashed[:, :8] == 0).all()
    image[:, :110] = 128
    assert 128 in resize(image, Preprocessing(size=32, interpolation="bilinear"))
    assert (resize(image, Preprocessing(size=32, crop_fraction=0.7, interpolation="bilinear")) == 255).all()


def test_crop_equals_resizing_the_shorter_side_then_cropping() -> None:
    """The usual two steps (resize to S / crop_fraction, cut out S) and our one show the same."""
    rows, columns = np.mgrid[0:512, 0:768]
    image = np.stack([rows / 2, columns / 3, (rows + columns) / 5], axis=-1).astype(np.uint8)
    two_steps = np.asarray(Image.fromarray(image).resize((384, 256), Image.Resampling.BICUBIC))[16:240, 80:304]
    one_step = resize(image, Preprocessing(size=224, crop_fraction=224 / 256))
    assert np.abs(two_steps.astype(int) - one_step).max() <= 1
    assert Preprocessing(size=224, crop_fraction=224 / 256).shorter_side == 256


@pytest.mark.parametrize("shape", [(1, 60_000, 3), (60_000, 1, 3), (1, 1, 3)])
def test_a_strip_does_not_become_a_giant(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 50, np.uint8)
    for how in ("crop", "squash"):
        assert (resize(image, Preprocessing(resize=how)) == 50).all()  # type: ignore[arg-type]


def test_a_square_of_the_right_size_is_not_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    assert resize(image, Preprocessing(size=48)) is image


def test_normalise_is_the_textbook_formula() -> None:
    preprocessing = Preprocessing(size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    got = normalise(images, preprocessing)
    want = ((images / 255 - preprocessing.mean) / preprocessing.std).transpose(0, 3, 1, 2)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_prepare_takes_images_of_any_size() -> None:
    preprocessing = Preprocessing(size=16)
    images = [read_image(quarters(width, height)) for width, height in ((64, 32), (10, 90), (16, 16))]
    batch = prepare(images, preprocessing)
    assert batch.shape == (3, 3, 16, 16)
    for row, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(row, normalise(resize(image, preprocessing)[None], preprocessing)[0])
    assert prepare([], preprocessing).shape == (0, 3, 16, 16)


def test_preprocessing_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="crop_percent"):
        Preprocessing(crop_percent=0.9)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="crop_fraction"):
        Preprocessing(crop_fraction=1.5)
    again = Preprocessing.model_validate_json(Preprocessing(size=240).model_dump_json())
    assert again == Preprocessing(size=240)
