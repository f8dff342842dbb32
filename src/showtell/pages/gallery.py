"""The page of `showtell gallery`: photos with their captions, to search, sort, correct and save as a CSV table.

The page grows in a temporary file as the captions come, and moves into its place after the last one, so memory does
not depend on the number of photos. It holds its style, pictures and script itself, lets no other script run, and makes
no request.
"""

import base64
import hashlib
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from showtell.captioner import Caption
from showtell.confidence import in_words
from showtell.errors import Interrupted
from showtell.files import new_file
from showtell.images.decode import Pixels, Source, read_image
from showtell.images.names import printable, writable
from showtell.pages.overlay import jpeg_uri
from showtell.pages.shell import POLICY, page_begin, page_end

LONGER_SIDE = 320  # pixels of a thumbnail: about 20 KB, so that a page of 1,000 photos stays one that browsers open
TOOLS = """<form class="tools" id="tools" role="search" hidden>
<input type="search" id="find" aria-label="Search captions and names" placeholder="Search" autocomplete="off">
<select id="sort" aria-label="Sort" autocomplete="off">
<option value="came">As they came</option>
<option value="doubt">Doubtful first</option>
<option value="checked">Checked first</option>
</select>
<div class="saves">
<button type="button" id="save-all">Save all</button>
<button type="button" id="save-checked">Save checked</button>
</div>
<p id="told" role="status"></p>
</form>
"""
LETTERS_A_LINE = 32  # of a caption, roughly; browsers that fit fields to their text don't need it


@dataclass(slots=True)
class Photo:
    """A photo on its way to the page."""

    name: str
    """What the page calls it."""
    image: str
    """Its name in the saved table: the whole path of its file, or its address."""
    read: Callable[[], Source]
    written: Sequence[str] = ()
    """What people wrote about it."""
    thumbnail: str = ""
    """An `<img>`; empty until the photo is read."""

    def pixels(self, at_least: int) -> Pixels:
        """The photo for the model, as `read_image` reads it; also makes its thumbnail, as stdin can be read only once.

        Raises:
            ShowtellError: it can't be read.
        """
        image = read_image(self.read(), at_least=at_least)
        small = Image.fromarray(image)
        small.thumbnail((LONGER_SIDE, LONGER_SIDE), reducing_gap=3.0)
        size = f'width="{small.width}" height="{small.height}"'
        self.thumbnail = f'<img src="{jpeg_uri(small)}" {size} alt="{escape(printable(self.name))}" decoding="async">'
        return image


@contextmanager
def open_gallery(out: Path, model: str) -> Iterator[Callable[[Photo, Caption], None]]:
    """Write the page; yields a function that adds a photo. After Ctrl-C the page holds what was captioned by then.

    Args:
        out: the file.
        model: its name.

    Raises:
        OSError: the file can't be written.
    """
    count = 0
    interrupted: Interrupted | None = None
    with new_file(out) as aside, aside.open("w", encoding="utf-8") as page:

        def add(photo: Photo, caption: Caption) -> None:
            nonlocal count
            count += 1
            page.write(article(photo, caption))

        page.write(_begin(out, model))
        try:
            yield add
        except Interrupted as error:
            interrupted = error
        counted = f"{count:,} photo{'s' * (count != 1)}. "
        page.write(f"</div>\n<script>{_script()}</script>\n{page_end(counted)}")
    if interrupted is not None:
        raise interrupted


def article(photo: Photo, caption: Caption) -> str:
    """One photo on the page."""
    name, said = escape(printable(photo.name)), escape(caption.text)
    short = escape(printable(Path(photo.name).name)) or name
    sure, badge = "", ""
    if caption.confidence is not None:
        words, percent = in_words(caption.confidence), round(100 * caption.confidence)
        sure = f' data-sure="{caption.confidence:.4f}"'
        told = f"Of 100 captions with this confidence, about {percent} are right"
        badge = f'<span class="badge {words.split()[-1]}" title="{told}">{words} {percent} %</span>'
    people = "".join(f'<li dir="auto" title="{escape(text)}">{escape(text)}</li>' for text in photo.written)
    people = f'<ul class="people" aria-label="People wrote">{people}</ul>\n' if people else ""
    rows = 1 + len(caption.text) // LETTERS_A_LINE
    return f"""<article class="photo" data-image="{escape(writable(photo.image))}"{sure}>
{photo.thumbnail}
<textarea rows="{rows}" dir="auto" enterkeyhint="next" aria-label="Caption of {name}">{said}</textarea>
<p class="about">{badge}<span class="mark" hidden><b></b> <button type="button">undo</button></span></p>
{people}<p class="name" title="{name}">{short}</p>
</article>
"""


def _begin(out: Path, model: str) -> str:
    """The page up to its first photo."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    command = escape(printable(f"showtell train {shlex.quote(f'{out.stem}-checked.csv')}"))
    begin = page_begin(
        printable(out.stem),
        escape(f"Captions by {model}"),
        '<p class="lead">Correct what is wrong; Enter marks a caption as right and goes to the next. '
        f"Then save the captions that you have checked, and train on them: <code>{command}</code></p>",
        style=_beside("gallery.css"),
        policy=f"{POLICY}; script-src 'sha256-{digest}'",
    )
    # By its id a browser recognises the page, and restores what was edited on it.
    photos = f'id="photos" data-id="{secrets.token_hex(8)}" data-name="{escape(printable(out.stem))}"'
    return f'{begin}{TOOLS}<div class="photos" {photos}>\n'


def _script() -> str:
    return _beside("gallery.js")


def _beside(file: str) -> str:
    return resources.files("showtell.pages").joinpath(file).read_text("utf-8")
