"""``showtell caption --explain DIR``: where the model looked, as a PNG for each image and a page of them all.

The page grows in a file of its own as the captions come and takes its place when the last is there, so memory
does not depend on the number of images. It holds its style and pictures itself and makes no request.
"""

import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from PIL import Image

from showtell import __version__
from showtell.captioner import Caption, Captioner
from showtell.errors import ImageError, Interrupted, UsageError
from showtell.images.decode import Pixels, Source
from showtell.images.names import printable
from showtell.images.storage import StoredImage
from showtell.pages.overlay import jpeg_uri, panels, panels_html

PAGE = "index.html"
GENERATOR = '<meta name="generator" content="showtell caption --explain">'
PHOTO_WIDTH = 360  # pixels; shown at 240, so that it is sharp on a dense screen too
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# Browsers lay out and draw only those of a thousand images that are on the screen.
LAZY = ".sample { content-visibility: auto; contain-intrinsic-size: auto 34rem; }"


class Explanations:
    """Takes the captions of one image after the other, draws their panels and adds them to the page."""

    def __init__(self, folder: Path, page: TextIO, captioner: Captioner) -> None:
        self._folder = folder
        self._page = page
        self._captioner = captioner
        self._read: dict[int, Source] = {}  # images that are read but not yet captioned
        self.count = 0
        self.has_attention = True

    def read(self, number: int, image: StoredImage) -> Source:
        """Read an image for captioning, and remember it: stdin can't be read twice, a URL should not be."""
        self._read[number] = source = image.source()
        return source

    def forget(self, number: int) -> None:
        """Let go of an image that could not be captioned."""
        self._read.pop(number, None)

    def add(self, number: int, name: str, captions: Sequence[Caption]) -> None:
        """Write the panels of the image's best caption, and all its captions on the page."""
        if not self.count:
            self.has_attention = captions[0].attention is not None
            self._page.write(page_begin(self._captioner.config.name, has_attention=self.has_attention))
        self.count += 1
        best = captions[0]
        picture = self._picture(self._read.pop(number))
        file = None
        if picture is not None and best.attention is not None and best.words:
            file = panels_name(number, name)
            write_png(self._folder / file, panels(picture, best.words, best.attention))
        self._page.write(article(name, captions, picture, file))

    def finish(self) -> None:
        """End the page."""
        if not self.count:
            self._page.write(page_begin(self._captioner.config.name, has_attention=True))
        self._page.write(page_end(self.count))

    def _picture(self, source: Source) -> Pixels | None:
        """What the model saw; None if the file is gone since."""
        if hasattr(source, "seek"):
            source.seek(0)
        try:
            return self._captioner.picture(source)
        except ImageError:
            return None


@contextmanager
def open_explanations(folder: Path, captioner: Captioner) -> Iterator[Explanations]:
    """Make the folder and its page; also after Ctrl-C the page holds what was captioned by then.

    Raises:
        UsageError: the folder can't be written, or holds a page that something else made.
    """
    refuse_another_page(folder / PAGE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=folder, prefix=".index-", suffix=".html")
    except OSError as error:
        raise _unwritable(folder, error) from None
    interrupted: Interrupted | None = None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as page:
            explanations = Explanations(folder, page, captioner)
            try:
                yield explanations
            except Interrupted as error:
                interrupted = error
            explanations.finish()
        Path(unfinished).chmod(0o644)  # mkstemp's 0600 is for secrets; a page is there to be shared
        Path(unfinished).replace(folder / PAGE)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    if interrupted is not None:
        raise interrupted


def refuse_another_page(page: Path) -> None:
    """Leave alone an index.html that is somebody's web site.

    Raises:
        UsageError: there is one, or the folder can't be read.
    """
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            ours = GENERATOR in file.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(page.parent, error) from None
    if not ours:
        raise UsageError(f"{page} is there and was not made by --explain.", "Choose another --explain DIR.")


def panels_name(number: int, name: str) -> str:
    """The file of an image's panels: its place among the inputs keeps names apart that are alike."""
    stem = re.sub(r"[^\w.-]+", "_", Path(printable(name)).stem).strip("._-")
    return f"{number + 1:04d}-{stem[:60] or 'image'}.png"


def write_png(path: Path, sheet: Image.Image) -> None:
    """Write a picture that is there whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        sheet.save(aside, "PNG")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def article(name: str, captions: Sequence[Caption], picture: Pixels | None, file: str | None) -> str:
    """One image on the page: photo, captions, and a panel a word under a fold."""
    best, others = captions[0], captions[1:]
    text = html.escape(best.text)
    photo = attention = ""
    facts = [f"log-probability {signed(best.log_prob)}", html.escape(printable(name))]
    if picture is None:
        facts.append("the photo is gone since it was captioned")
    else:
        small = Image.fromarray(picture)
        small.thumbnail((PHOTO_WIDTH, 2 * PHOTO_WIDTH), reducing_gap=3.0)
        size = f'width="{small.width}" height="{small.height}"'
        photo = f'<img src="{jpeg_uri(small)}" {size} alt="The photo that the model calls “{text}”">'
    if picture is not None and best.attention is not None and file is not None:
        facts.append(f'<a href="{quote(file)}">panels as PNG</a>')
        fragment = panels_html(picture, best.words, best.attention)
        attention = f"<details open><summary>Attention, word by word</summary>{fragment}</details>\n"
    listed = "".join(
        f"<li>{html.escape(caption.text)} <small>({signed(caption.log_prob)})</small></li>" for caption in others
    )
    more = f'<p class="label">It also said</p>\n<ul class="references">{listed}</ul>' if listed else ""
    return f"""<article class="sample">
<div class="{"told" if photo else "told bare"}">{photo}<div>
<h2 class="caption">{text or "(no words)"}</h2>
<p class="facts">{" · ".join(facts)}</p>
{more}</div></div>
{attention}</article>
"""


def page_begin(model: str, *, has_attention: bool) -> str:
    """The page up to its first image."""
    # The training report's style: this page shows the same things.
    style = resources.files("showtell.pages").joinpath("page.css").read_text("utf-8")
    title = html.escape(model)
    lead = (
        "Where the model looked for each word. The brighter a place, the more of the word’s attention it had; "
        "a panel that stays dim is of a word that looked everywhere about evenly."
        if has_attention
        else "This model has no attention to show: the page holds photos and captions only."
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<title>{title}: captions explained</title>
<style>
{style}{LAZY}
</style>
</head>
<body>
<header>
<p class="eyebrow">Captions explained</p>
<h1>{title}</h1>
<p class="lead">{lead}</p>
</header>
<main>
<section aria-label="Images">
"""


def page_end(count: int) -> str:
    """The page behind its last image."""
    made = f"{count:,} image{'s' * (count != 1)}. Written by showtell {__version__}."
    return f"""</section>
</main>
<footer><p>{made} This page holds all that it shows and loads nothing.</p></footer>
</body>
</html>
"""


def signed(value: float) -> str:
    """A number with a typographic minus."""
    return f"{'−' * (value < 0)}{abs(value):.2f}"


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder} can't be written: {error.strerror}.", "Choose another --explain DIR.")
