"""Any image file, safely, as an RGB array; then resized, cropped and normalised as a model's config says.

`read_image` -> uint8 `[H, W, 3]`; `resize` -> uint8 `[S, S, 3]`; `normalise` -> float32 `[B, 3, S, S]`.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from pydantic import BaseModel, ConfigDict, Field

from showtell.errors import ImageError, reason_of

Source = str | Path | bytes | BinaryIO | Image.Image | npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

# Formats of photos. Pillow knows more, but some of those run other programs (EPS) or accept any file (TGA).
CODECS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".avif", ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".qoi",
})  # fmt: skip
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
PNG = b"\x89PNG\r\n\x1a\n"
# Marker, length, and, in a scan's header, the number of its colours.
JPEG_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd9\xff])(..)(.)", re.DOTALL)
PNG_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(BaseModel):
    """How an encoder wants its images: part of its configuration, saved with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(224, ge=1, le=4096, description="Side of the square that the encoder sees (S), in pixels.")
    resize: Literal["crop", "squash"] = Field(
        "crop",
        description="crop: the image's centre square; squash: the whole image, with its shape changed.",
    )
    crop_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the shorter side (crop) or each side (squash) that is kept, around the centre.",
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = Field(
        "bicubic",
        description="Filter for resizing; each averages over the pixels that shrink into one.",
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="Subtracted from red, green, blue, on a scale of 0 to 1."
    )
    std: tuple[float, float, float] = Field(
        (0.229, 0.224, 0.225), description="What red, green, blue are divided by after that."
    )

    @property
    def shorter_side(self) -> int:
        """The shorter side in pixels from which `resize` need not enlarge: `at_least` of `read_image`."""
        return ceil(self.size / self.crop_fraction)


def read_image(source: Source, *, max_pixels: int = 100_000_000, at_least: int | None = None) -> Pixels:
    """An image as uint8 `[H, W, 3]` RGB, upright, transparency on white; the first frame if there are several.

    Args:
        source: a path, the bytes of a file, an open binary file, a Pillow image, or an array `[H, W]` or
            `[H, W, 1 | 3 | 4]` (uint8 or uint16 over their range, floats 0 to 1, bool).
        max_pixels: an image with more pixels is refused before anything is decoded.
        at_least: the shorter side may be reduced, but not below this: a JPEG is then decoded at 1/2, 1/4 or 1/8 of
            its size, several times faster, and may have more than `max_pixels`.

    Raises:
        ImageError: the source is no image, is damaged or cut off, or is too large.
    """
    name = name_of(source)
    if isinstance(source, np.ndarray):
        return _pixels_of_array(source, name)
    with _explained(name):
        if isinstance(source, Image.Image):
            if source.width * source.height > max_pixels:
                raise _too_large(source.size, max_pixels, name)
            return _pixels_of(source)
        if isinstance(source, (str, Path)):
            with Path(source).open("rb") as opened:
                return _read_file(opened, name, max_pixels, at_least)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        return _read_file(file, name, max_pixels, at_least)


def name_of(source: Source) -> str:
    """What messages call the image: its path, or what kind of thing it is."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return f"Image of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"Array of shape {source.shape} and type {source.dtype}"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(name) if isinstance(name, (str, Path)) and str(name) else "Image"


def resize(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """One RGB image `[H, W, 3]` as the square uint8 `[S, S, 3]` that the encoder sees."""
    height, width = image.shape[:2]
    size = preprocessing.size
    if (height, width) == (size, size) and preprocessing.crop_fraction == 1:
        return image
    # Crop and shrink in one step: otherwise a strip of 1 x 60,000 pixels would become 256 x 15 million.
    resampling = RESAMPLING[preprocessing.interpolation]
    return np.array(Image.fromarray(image).resize((size, size), resampling, box=box_seen(width, height, preprocessing)))


def normalise(images: Pixels, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """uint8 `[B, S, S, 3]` -> contiguous float32 `[B, 3, S, S]`, `(x / 255 - mean) / std` for each colour."""
    std = np.asarray(preprocessing.std, np.float64)
    scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
    shift = (-np.asarray(preprocessing.mean, np.float64) / std).astype(np.float32)[:, None, None]
    batch, height, width, _ = images.shape
    normalised = np.empty((batch, 3, height, width), np.float32)
    for image, planes in zip(images, normalised, strict=True):  # one image's planes stay in the CPU's cache
        planes[...] = image.transpose(2, 0, 1)
        planes *= scale
        planes += shift
    return normalised


def prepare(images: Sequence[Pixels], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """RGB images of any sizes -> float32 `[B, 3, S, S]`: `resize` and `normalise`."""
    size = preprocessing.size
    squares = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        squares[row] = resize(image, preprocessing)
    return normalise(squares, preprocessing)


def box_seen(width: int, height: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """The part of an image that the model sees (`resize`): left, top, right, bottom in pixels."""
    fraction = preprocessing.crop_fraction
    if preprocessing.resize == "crop":
        across = down = min(width, height) * fraction
    else:
        across, down = width * fraction, height * fraction
    left, top = (width - across) / 2, (height - down) / 2
    return (left, top, left + across, top + down)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever a file does to its decoder into one ImageError that names the file."""
    try:
        yield
    except ImageError:
        raise
    except OSError as error:
        if error.strerror:  # from the operating system; an OSError of a decoder has only a text
            raise ImageError(f"{name} can't be opened: {error.strerror}.") from error
        raise _damaged(name, error) from error
    except Exception as error:  # decoders of damaged files raise SyntaxError, ValueError, struct.error, ...
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    reason = reason_of(error)
    cut_off = "truncated" in reason or isinstance(error, EOFError)
    return ImageError(f"{name} is {'cut off' if cut_off else 'damaged'}: {reason}.")


def _read_file(file: BinaryIO, name: str, max_pixels: int, at_least: int | None) -> Pixels:
    """The image in an open file."""
    if not file.seekable():
        file = io.BytesIO(file.read())
    start = file.tell()
    try:
        return _decoded(file, name, max_pixels, at_least)
    except (ValueError, SyntaxError):  # Pillow refuses a PNG whose texts or colour profile are over 1 MB or damaged
        file.seek(start)
        if file.read(len(PNG)) != PNG:
            raise
        return _decoded(_without_metadata(file), name, max_pixels, at_least)


def _without_metadata(file: BinaryIO) -> BinaryIO:
    """A PNG, read up to its first chunk, without its texts and its colour profile, which are not unpacked."""
    kept = [PNG]
    name = b""
    while name != b"IEND" and len(header := file.read(8)) == 8:
        name, length = header[4:], int.from_bytes(header[:4], "big") + 4  # with its check sum
        if name in PNG_METADATA:
            file.seek(length, io.SEEK_CUR)
        else:
            kept += [header, file.read(length)]
    return io.BytesIO(b"".join(kept))


def _decoded(file: BinaryIO, name: str, max_pixels: int, at_least: int | None) -> Pixels:
    start = file.tell()
    image = _open(file, name)
    size = held = image.size
    if at_least is not None:
        by_rows = _is_decoded_row_by_row(image, file, start)
        image.draft(None, (at_least, at_least))  # does something for a JPEG only
        held = image.size if by_rows else size
    if held[0] * held[1] > max_pixels:
        raise _too_large(
            size,
            max_pixels,
            name,
            "save it as a baseline JPEG, which can be decoded at a fraction of its size" if at_least else "",
        )
    return _pixels_of(image)


def _is_decoded_row_by_row(image: Image.Image, file: BinaryIO, start: int) -> bool:
    """Whether it is a JPEG with all colours in its first scan. Others are held in memory unscaled."""
    if not isinstance(image, JpegImageFile) or image.info.get("progressive"):
        return False
    before, place, colours = file.tell(), start + 2, b""
    while not colours and file.seek(place) and (segment := JPEG_SEGMENT.fullmatch(file.read(5))):
        place += 2 + int.from_bytes(segment[2], "big")
        colours = segment[3] if segment[1] == b"\xda" else b""
    file.seek(before)
    return colours == bytes([image.layers])


def _open(file: BinaryIO, name: str) -> Image.Image:
    """The image with its header read and nothing decoded.

    Not `Image.open`: its limit on pixels is one number for the whole process, and warns before it refuses.
    """
    start = file.tell()
    prefix = file.read(64)
    if not prefix:
        raise ImageError(f"{name} is empty.")
    if _is_heif(prefix):
        return _open_heif(file, start, name)
    Image.preinit()
    for format_ in CODECS:
        if format_ not in Image.OPEN:
            Image.init()
        if format_ not in Image.OPEN:  # this Pillow was built without it
            continue
        factory, accept = Image.OPEN[format_]
        if accept is not None and accept(prefix) is not True:
            continue
        file.seek(start)
        return factory(file, name)
    raise ImageError(f"{name} is not an image that showtell can read.", f"It reads {', '.join(CODECS)} and HEIF.")


def _is_heif(prefix: bytes) -> bool:
    """Whether the file's brands name HEVC pictures; AVIF has the same container, and Pillow reads it."""
    brands = prefix[8 : int.from_bytes(prefix[:4], "big")]
    return prefix[4:8] == b"ftyp" and any(brands[i : i + 4] in HEIF_BRANDS for i in range(0, len(brands), 4))


def _open_heif(file: BinaryIO, start: int, name: str) -> Image.Image:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(f"{name} is HEIF.", "To read that, run: pip install 'showtell[heif]'") from error
    file.seek(start)
    image: Image.Image = pillow_heif.HeifImageFile(file, name)  # type: ignore[no-untyped-call]
    return image


def _too_large(size: tuple[int, int], max_pixels: int, name: str, else_: str = "") -> ImageError:
    width, height = size
    return ImageError(
        f"{name} has {width} x {height} = {width * height:,} pixels; the limit is {max_pixels:,}.",
        f"Shrink the image, or {else_ or 'raise max_pixels'}.",
    )


def _pixels_of(image: Image.Image) -> Pixels:
    """A Pillow image, decoded, upright, in RGB."""
    image.load()
    turn = UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return np.array(_rgb(image))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF does not matter: the pixels are fine
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparent pixels on white, and more than 8 bits scaled down, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits_of_deep(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits_of_deep(values: npt.NDArray[Any]) -> Pixels:
    """16-bit grey over its full range; wider integers and floats from their least value to their greatest."""
    if values.dtype.kind == "u":
        return _eight_bits_of_16(values)
    if values.dtype.kind == "i" and values.min() >= 0 and values.max() <= 65535:
        return _eight_bits_of_16(values)
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
    return np.round((values - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)


def _eight_bits_of_16(values: npt.NDArray[Any]) -> Pixels:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _pixels_of_array(array: npt.NDArray[Any], name: str) -> Pixels:
    """An array `[H, W]` or `[H, W, 1 | 3 | 4]` as RGB."""
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not shaped or array.size == 0:
        raise ImageError(f"{name} is not an image.", "Its shape must be [H, W] or [H, W, 1, 3 or 4].")
    if array.dtype == np.uint8:
        values = array
    elif array.dtype == np.uint16:
        values = _eight_bits_of_16(array)
    elif array.dtype == np.bool_:
        values = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            values_found = f"{array.min():g} to {array.max():g}"
            raise ImageError(f"{name} has values from {values_found}.", "Floats must be 0 to 1.")
        values = np.round(array.astype(np.float32) * 255).astype(np.uint8)
    else:
        raise ImageError(f"{name} has a type that images don't have.", "Make it uint8, 0 to 255.")
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] == 4:
        return np.array(_rgb(Image.fromarray(values, "RGBA")))
    return np.array(np.broadcast_to(values, (*values.shape[:2], 3)), order="C")
