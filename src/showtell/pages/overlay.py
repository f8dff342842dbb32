"""Attention drawn over a photo: where the decoder looked as it said each word (NumPy and Pillow only).

A word's alpha is measured in even shares: 1/N for each of the grid's N cells, as if it had looked
everywhere. A cell at or below one share stays dark, the word's strongest cell is brightest, and brightness
is linear between them. A word whose strongest cell is below FULL_AT shares never reaches full brightness:
if the model looked everywhere at once ("a", "of"), the picture shows that, and does not amplify noise.
Lightness shows the heat before colour does: the photo is dim and grey where the model did not look, and
glows in its own colours where it looked most.

The grid covers the whole image given. Pass the picture that the model saw (`images.resize` of the photo)
or, for a model that squashes photos instead of cropping them, the photo itself.
"""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from showtell.errors import UsageError

FULL_AT = 4.0  # even shares (1/N) that a cell needs for full brightness, in a word without a stronger cell
DIMMED = 0.5  # brightness left where the model did not look: dark enough to recede, light enough to recognise
GREYED = 0.75  # colour taken away there
GLOW = (
    255.0,
    176.0,
    64.0,
)  # amber: unlike skin, grass, sky and snow, for every kind of colour vision
GLOW_OPACITY = 0.45
LUMA = (0.2126, 0.7152, 0.0722)

PAPER, INK = (255, 255, 255), (28, 28, 30)
FEWEST_ACROSS, MOST_ACROSS = 6, 10  # panels in a row of a wide page
JPEG_QUALITY = 68  # with 4:2:0 chroma about 5 KB for a panel of 176 pixels


def heat(alpha: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """Scale one word's attention (see the head of this file) and smooth it to the size of a picture.

    Args:
        alpha: `[h, w]`, not negative; it need not sum to one.
        height: pixels, H.
        width: pixels, W.

    Returns:
        float32 `[H, W]` from 0 (no more than an even spread) to 1.

    Raises:
        UsageError: when alpha is no grid of finite numbers.
    """
    alpha = np.asarray(alpha, dtype=np.float32)
    if alpha.ndim != 2 or alpha.size == 0 or not np.isfinite(alpha).all():
        raise UsageError(f"Attention must be finite numbers of shape [h, w], not {alpha.shape}.")
    even = float(alpha.mean())
    if even <= 0:
        return np.zeros((height, width), dtype=np.float32)
    shares = alpha / even
    excess = (shares - 1) / (max(float(shares.max()), FULL_AT) - 1)
    smooth = Image.fromarray(excess.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, dtype=np.float32), 0, 1)


def overlay(image: NDArray[np.uint8], alpha: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draw one word's attention `[h, w]` over an image uint8 `[H, W, 3]`; returns uint8 `[H, W, 3]`."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"The image must be uint8 of shape [H, W, 3], not {image.dtype} {list(image.shape)}.")
    strength = heat(alpha, *image.shape[:2])[..., None]
    photo = image.astype(np.float32)
    grey = photo @ np.array(LUMA, dtype=np.float32)
    unseen = DIMMED * (photo + GREYED * (grey[..., None] - photo))
    seen = photo + GLOW_OPACITY * strength * (np.array(GLOW, dtype=np.float32) - photo)
    drawn = unseen + strength * (seen - unseen)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def panels(
    image: NDArray[np.uint8],
    words: Sequence[str],
    attention: NDArray[np.floating],
    *,
    columns: int = 5,
    width: int = 240,
) -> Image.Image:
    """A panel for each word, row by row, each with its word below it.

    Args:
        image: uint8 `[H, W, 3]`, what the model saw.
        words: the caption's T words.
        attention: `[T, h, w]`.
        columns: panels in a row.
        width: pixels of a panel; its height follows the image.

    Raises:
        UsageError: when there are no words, or not one grid for each.
    """
    if columns < 1 or width < 16:
        raise UsageError(f"Panels need at least 1 column of 16 pixels, not {columns} of {width}.")
    drawn = _word_overlays(image, words, attention, width)
    columns = min(columns, len(drawn))
    gap, size = max(8, width // 14), max(11, width // 13)
    font = ImageFont.load_default(size)
    panel_height = drawn[0].height
    row_height = panel_height + size * 2 + gap
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * row_height + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (word, panel) in enumerate(zip(words, drawn, strict=True)):
        left = gap + (number % columns) * (width + gap)
        top = gap + (number // columns) * row_height
        sheet.paste(panel, (left, top))
        text = _cut(word, font, width)
        draw.text((left + width / 2, top + panel_height + size), text, INK, font, anchor="mm")
    return sheet


def panels_html(
    image: NDArray[np.uint8], words: Sequence[str], attention: NDArray[np.floating], *, width: int = 176
) -> str:
    """`panels` as an HTML fragment: an ordered list of figures that hold their JPEGs as data URIs.

    It needs no style sheet and makes no request; a page may style it by its class, `attention`.
    """
    drawn = _word_overlays(image, words, attention, width)
    items = []
    for word, alpha, panel in zip(words, attention, drawn, strict=True):
        name, size = html.escape(word), f'width="{panel.width}" height="{panel.height}"'
        items.append(
            f'<li><figure style="margin:0"><img src="{jpeg_uri(panel)}" {size} style="width:100%;height:auto"'
            f' alt="Looked at for “{name}”: {brightest(alpha)}"><figcaption>{name}</figcaption></figure></li>'
        )
    rows = -(-len(words) // MOST_ACROSS)
    across = max(FEWEST_ACROSS, -(-len(words) // rows))  # rows of similar length; narrow screens break earlier
    column = f"minmax(max({width // 2}px,(100% - {across - 1} * .75rem) / {across}),1fr)"
    layout = f"display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,{column})"
    return f'<ol class="attention" dir="auto" style="list-style:none;margin:0;padding:0;{layout}">{"".join(items)}</ol>'


def brightest(alpha: NDArray[np.floating]) -> str:
    """Say where a grid `[h, w]` is strongest, for people who can't see the picture: `"upper left"`."""
    height, width = alpha.shape
    row, column = divmod(int(np.argmax(alpha)), width)
    vertical = ("upper", "", "lower")[(2 * row + 1) * 3 // (2 * height)]
    horizontal = ("left", "", "right")[(2 * column + 1) * 3 // (2 * width)]
    if heat(alpha, height, width).max() < 0.25:
        return "about evenly everywhere"
    return f"{vertical} {horizontal or 'middle'}".strip()


def jpeg_uri(image: Image.Image) -> str:
    """A picture as a `data:` URI that an HTML page can hold."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True, subsampling="4:2:0")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _word_overlays(
    image: NDArray[np.uint8], words: Sequence[str], attention: NDArray[np.floating], width: int
) -> list[Image.Image]:
    """One picture for each word, `width` pixels wide."""
    if attention.ndim != 3 or len(words) == 0 or len(words) != len(attention):
        raise UsageError(
            f"{len(words)} words need attention of shape [{len(words)}, h, w], not {list(attention.shape)}."
            if len(words)
            else "There are no words to draw attention for."
        )
    height = max(1, round(width * image.shape[0] / image.shape[1]))
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
    return [Image.fromarray(overlay(small, alpha)) for alpha in attention]


def _cut(word: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The word, or as much of it as fits in `width` pixels."""
    if font.getlength(word) <= width:
        return word
    kept = next(n for n in range(len(word) - 1, -1, -1) if n == 0 or font.getlength(word[:n] + "…") <= width)
    return word[:kept] + "…"
