"""One captioned image, on a page or in the report: its photo, the caption, facts about it, the attention."""

import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from showtell.errors import ShowtellError
from showtell.metrics.table import RANKED_BY
from showtell.pages.overlay import jpeg_uri, panels_html
from showtell.pages.records import Record, items, number, score
from showtell.pages.shell import true_minus

PHOTO_WIDTH = 360  # pixels; shown at 240, so that it is sharp on a dense screen too


def article(
    picture: NDArray[np.uint8] | None,
    caption: str,
    facts: Sequence[str],
    label: str,
    listed: Sequence[str],
    below: str,
    *,
    tag: str = "p",
) -> str:
    """One image with its caption.

    Args:
        picture: the photo `[H, W, 3]`; None if there is none.
        caption: plain text.
        facts: HTML, for the line below the caption.
        label: of the list.
        listed: HTML items.
        below: HTML under everything else.
        tag: of the caption: a paragraph, or a heading.
    """
    text = html.escape(caption)
    photo = ""
    if picture is not None:
        small = Image.fromarray(picture)
        small.thumbnail((PHOTO_WIDTH, 2 * PHOTO_WIDTH), reducing_gap=3.0)
        size = f'width="{small.width}" height="{small.height}"'
        photo = f'<img src="{jpeg_uri(small)}" {size} alt="The photo that the model calls “{text}”">'
    entries = "".join(f'<li dir="auto">{item}</li>' for item in listed)
    entries = f'<p class="label">{label}</p>\n<ul class="references">{entries}</ul>' if entries else ""
    return f"""<article class="sample">
<div class="{"told" if photo else "told bare"}">{photo}<div>
<{tag} class="caption" dir="auto">{text or "(no words)"}</{tag}>
<p class="facts">{" · ".join(facts)}</p>
{entries}</div></div>
{below}
</article>"""


def attention_details(
    picture: NDArray[np.uint8], words: Sequence[str], attention: NDArray[np.floating], *, unfolded: bool
) -> str:
    """A panel for each word, under a fold."""
    panels = panels_html(picture, words, attention)
    return f"<details{' open' * unfolded}><summary>Attention, word by word</summary>{panels}</details>"


def sample_article(run_folder: Path, sample: Record, *, unfolded: bool) -> str:
    """One validation image of a training run: caption, what people wrote, attention."""
    picture = _photo(run_folder, sample)
    ranked_by = score(sample, RANKED_BY)
    facts = [] if ranked_by is None else [f"<b>{RANKED_BY} {ranked_by:.1f}</b>"]
    if (log_prob := number(sample.get("log_prob"))) is not None:
        facts.append(f"log-probability {true_minus(f'{log_prob:.1f}')}")
    facts.append(html.escape(str(sample.get("image_id", "without a name"))))
    references = [html.escape(str(text)) for text in items(sample, "references")]
    attention = "" if picture is None else _attention(run_folder, sample, picture, unfolded=unfolded)
    return article(picture, str(sample.get("caption", "")), facts, "People wrote", references, attention)


def _attention(run_folder: Path, sample: Record, image: NDArray[np.uint8], *, unfolded: bool) -> str:
    words = [str(word) for word in items(sample, "words") or str(sample.get("caption", "")).split()]
    if not sample.get("attention") or not words:
        return ""
    try:
        grids = np.load(run_folder / str(sample["attention"]), allow_pickle=False)
        # One more grid may belong to <end>.
        return attention_details(image, words, grids[: len(words)], unfolded=unfolded)
    except (OSError, EOFError, ValueError, IndexError, ShowtellError):
        return '<p class="facts">Its attention can’t be read.</p>'


def _photo(run_folder: Path, sample: Record) -> NDArray[np.uint8] | None:
    if not sample.get("image"):
        return None
    try:
        with Image.open(io.BytesIO((run_folder / str(sample["image"])).read_bytes())) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
