"""One validation image in the report: its photo, the model's caption, people's captions, the attention."""

import html
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from showtell.errors import ShowtellError
from showtell.metrics.table import RANKED_BY
from showtell.pages.overlay import jpeg_uri, panels_html
from showtell.pages.records import Record, items, number, score

PHOTO_WIDTH = 360  # pixels; shown at 240, so that it is sharp on a dense screen too


def sample_article(run_folder: Path, sample: Record, *, unfolded: bool) -> str:
    """One image with its caption, what people wrote, and the attention panels under a fold."""
    caption = html.escape(str(sample.get("caption", "")))
    image = _photo(run_folder, sample)
    photo = attention = ""
    if image is not None:
        small = Image.fromarray(image)
        small.thumbnail((PHOTO_WIDTH, 2 * PHOTO_WIDTH), reducing_gap=3.0)
        size = f'width="{small.width}" height="{small.height}"'
        photo = f'<img src="{jpeg_uri(small)}" {size} alt="The photo that the model calls “{caption}”">'
        attention = _attention(run_folder, sample, image, unfolded=unfolded)
    ranked_by = score(sample, RANKED_BY)
    facts = [] if ranked_by is None else [f"<b>{RANKED_BY} {ranked_by:.3f}</b>"]
    if (log_prob := number(sample.get("log_prob"))) is not None:
        facts.append(f"log-probability {'−' * (log_prob < 0)}{abs(log_prob):.1f}")
    facts.append(html.escape(str(sample.get("image_id", "without a name"))))
    references = "".join(f"<li>{html.escape(str(text))}</li>" for text in items(sample, "references"))
    listed = f'<p class="label">People wrote</p>\n<ul class="references">{references}</ul>' if references else ""
    return f"""<article class="sample">
<div class="{"told" if photo else "told bare"}">{photo}<div>
<p class="caption">{caption}</p>
<p class="facts">{" · ".join(facts)}</p>
{listed}</div></div>
{attention}
</article>"""


def _attention(run_folder: Path, sample: Record, image: NDArray[np.uint8], *, unfolded: bool) -> str:
    words = [str(word) for word in items(sample, "words") or str(sample.get("caption", "")).split()]
    if not sample.get("attention") or not words:
        return ""
    try:
        grids = np.load(run_folder / str(sample["attention"]), allow_pickle=False)
        fragment = panels_html(image, words, grids[: len(words)])  # one more grid may belong to <end>
    except (OSError, EOFError, ValueError, IndexError, ShowtellError):
        return '<p class="facts">Its attention can’t be read.</p>'
    start = "<details open>" if unfolded else "<details>"
    return f"{start}<summary>Attention, word by word</summary>{fragment}</details>"


def _photo(run_folder: Path, sample: Record) -> NDArray[np.uint8] | None:
    if not sample.get("image"):
        return None
    try:
        with Image.open(io.BytesIO((run_folder / str(sample["image"])).read_bytes())) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
