"""``showtell caption --explain DIR``: where the model looked, as a PNG for each image and a page of them all.

The page grows in a temporary file as the captions come, and moves into its place after the last one, so memory
does not depend on the number of images. It holds its style and pictures itself and makes no request.
"""

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from showtell.captioner import Caption, Captioner
from showtell.errors import ImageError, Interrupted, UsageError
from showtell.files import new_file
from showtell.images.decode import Pixels, Source
from showtell.images.names import printable
from showtell.images.storage import StoredImage
from showtell.pages.overlay import panels
from showtell.pages.shell import lead, page_begin, page_end, true_minus

PAGE = "index.html"
GENERATOR = '<meta name="generator" content="showtell caption --explain">'
# Of a thousand images, browsers lay out and draw only those on the screen.
LAZY = ".sample { content-visibility: auto; contain-intrinsic-size: auto 34rem; }\n"


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
        """Forget an image that could not be captioned."""
        self._read.pop(number, None)

    def add(self, number: int, name: str, captions: Sequence[Caption]) -> None:
        """Write the panels of the image's best caption, and all its captions on the page."""
        if not self.count:
            self.has_attention = captions[0].attention is not None
            self._begin()
        self.count += 1
        best = captions[0]
        picture = self._picture(self._read.pop(number))
        file = None
        if picture is not None and best.attention is not None and best.words:
            file = panels_name(number, name)
            with new_file(self._folder / file, flush=False) as aside:
                panels(picture, best.words, best.attention).save(aside, "PNG")
        self._page.write(explanation(name, captions, picture, file))

    def finish(self) -> None:
        if not self.count:
            self._begin()
        self._page.write("</section>\n" + page_end(f"{self.count:,} image{'s' * (self.count != 1)}. "))

    def _begin(self) -> None:
        said = (
            "Where the model looked for each word. The brighter a place, the more of the word’s attention it had; "
            "a panel that stays dim belongs to a word for which the model looked about evenly everywhere."
            if self.has_attention
            else "This model has no attention to show: the page holds photos and captions only."
        )
        name = self._captioner.config.name
        self._page.write(page_begin(name, "Captions explained", lead(said), style=LAZY, meta=GENERATOR + "\n"))
        self._page.write('<section aria-label="Images">\n')

    def _picture(self, source: Source) -> Pixels | None:
        """What the model saw; None if the file has gone since then."""
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
        UsageError: the folder can't be written, or holds a page that --explain did not make.
    """
    refuse_another_page(folder / PAGE)
    interrupted: Interrupted | None = None
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside = opened.enter_context(new_file(folder / PAGE))
        except OSError as error:
            raise _unwritable(folder, error) from None
        explanations = Explanations(folder, opened.enter_context(aside.open("w", encoding="utf-8")), captioner)
        try:
            yield explanations
        except Interrupted as error:
            interrupted = error
        explanations.finish()
    if interrupted is not None:
        raise interrupted


def refuse_another_page(page: Path) -> None:
    """Refuse to overwrite an index.html that --explain did not make.

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
        raise UsageError(f"{page} exists and was not made by --explain.", "Choose another --explain DIR.")


def panels_name(number: int, name: str) -> str:
    """The file of an image's panels: its place among the inputs tells files of the same name apart."""
    stem = re.sub(r"[^\w.-]+", "_", Path(printable(name)).stem).strip("._-")
    return f"{number + 1:04d}-{stem[:60] or 'image'}.png"


def explanation(name: str, captions: Sequence[Caption], picture: Pixels | None, file: str | None) -> str:
    """One image on the page: photo, captions, and a panel for each word under a fold."""
    from showtell.pages.sample import article, attention_details  # loads all metrics: `caption` must not wait for them

    best, others = captions[0], captions[1:]
    facts = [f"log-probability {signed(best.log_prob)}", html.escape(printable(name))]
    attention = ""
    if picture is None:
        facts.append("the photo has gone since it was captioned")
    elif best.attention is not None and file is not None:
        facts.append(f'<a href="{quote(file)}">panels as PNG</a>')
        attention = attention_details(picture, best.words, best.attention, unfolded=True)
    listed = [f"{html.escape(caption.text)} <small>({signed(caption.log_prob)})</small>" for caption in others]
    return article(picture, best.text, facts, "It also said", listed, attention, tag="h2") + "\n"


def signed(value: float) -> str:
    """A log-probability as pages show it."""
    return true_minus(f"{value:.2f}")


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder} can't be written: {error.strerror}.", "Choose another --explain DIR.")
