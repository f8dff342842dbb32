"""`showtell gallery`: the command, and its page in a browser: search, sort, edit, undo, save."""

import io
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from showtell.cli import main
from showtell.confidence import Confidence
from showtell.data import load as load_data
from tests.fake_model import CAPTIONS, FakeEngine, fake_tokenizer, picture, png, save_fake_model, use_fake_engine

RED, GREEN, BLUE = CAPTIONS


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: a model `m`, surest of red photos, and `photos` with four images, one of them broken."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_model(tmp_path / "m")
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    picture("lime").save("photos/a.png")
    Path("photos/b.png").write_bytes(b"nonsense")
    picture("blue").save("photos/c.png")
    picture("red").save('photos/trip/"><script>alert(1)<|script>&amp; a.png')
    return tmp_path


def save_model(folder: Path) -> None:
    """Its confidence grows with a caption's rarest word."""
    tokenizer = fake_tokenizer()
    rarity = [0.0] * len(tokenizer)
    for word, rare in (("red", 3.0), ("green", 2.0), ("blue", 0.5)):
        rarity[tokenizer.id_of(word)] = rare
    save_fake_model(folder, confidence=Confidence(weights=(0.0, 0.0, 1.1), bias=-1.55, rarity=tuple(rarity)))


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `showtell gallery -m m ... --out album.html`."""
    code = main(["gallery", "-m", "m", *map(str, arguments), "--out", "album.html"])
    out, error = capsys.readouterr()
    return code, out, error


class Page(HTMLParser):
    """Tags with their attributes, and the text in each."""

    def __init__(self, file: str = "album.html") -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(Path(file).read_text(encoding="utf-8"))
        assert not self.open, "a tag is not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def test_a_page_of_all_photos_but_the_broken_one(place, capsys):
    code, out, error = run(capsys, "photos")
    assert (code, out) == (1, "Gallery: album.html\n")
    assert "photos/b.png is not an image" in error
    assert error.endswith("showtell: 3 captioned, 1 failed.\n")
    page = Page()
    assert page.said("textarea") == [GREEN, BLUE, RED]
    hostile = '"><script>alert(1)<|script>&amp; a.png'
    assert [article["data-image"] for article in page.all("article")] == [
        str(place / "photos" / name) for name in ("a.png", "c.png", f"trip/{hostile}")
    ]
    assert hostile in [text for tag, text in page.texts if tag == "p"]
    assert len(page.all("script")) == 1
    assert [text for text in page.said("span") if "%" in text] == ["sure 66 %", "a guess 27 %", "sure 85 %"]


def test_thumbnails_keep_the_proportions(place, capsys):
    Image.new("RGB", (900, 300), "blue").save("photos/wide.png")
    run(capsys, "photos/wide.png", "photos/a.png")
    assert [(image["width"], image["height"]) for image in Page().all("img")] == [("320", "107"), ("12", "12")]


def test_the_page_asks_nobody_and_runs_its_own_script_only(place, capsys):
    run(capsys, "photos")
    policy = next(meta["content"] for meta in Page().all("meta") if "http-equiv" in meta)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/=]{44}'", policy
    )
    assert not re.search(r"url\(|@import|https?:", Path("album.html").read_text(encoding="utf-8"))


def test_a_data_set_shows_what_people_wrote(place, capsys):
    Path("own.csv").write_text(
        'image,caption,split\nphotos/a.png,"a <lime> wall",dev\nphotos/a.png,all green,dev\nphotos/c.png,blue,train\n'
    )
    code, out, _ = run(capsys, "--data", "own.csv")
    assert (code, out) == (0, "Gallery: album.html\n")
    page = Page()
    assert page.said("textarea") == [GREEN]
    assert page.said("li") == ["a <lime> wall", "all green"]


def test_a_data_set_of_ones_own_is_split_as_train_splits_it(place, capsys):
    """Else the page would show photos as dev that the model has learnt from."""
    for number in range(20):
        picture("red").save(f"photos/{number}.png")
    Path("own.csv").write_text("image,caption\n" + "".join(f"photos/{n}.png,a wall\n" for n in range(20)))
    code, _, error = run(capsys, "--data", "own.csv")
    assert code == 0
    assert "images are split 80/20/0" in error
    assert len(Page().all("article")) == 4


def test_scenes_without_files(place, capsys):
    code, _, _ = run(capsys, "--data", "shapes:40,pixels=64", "--split", "test")
    assert code == 0
    assert all(image["width"] == "64" for image in Page().all("img"))


def test_stdin_is_read_once(place, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(png("blue"))))
    assert run(capsys, "-")[0] == 0
    assert Page().said("textarea") == [BLUE]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_that_are_no_unicode(place, capsys):
    os.rename(b"photos/a.png", b"photos/\xe8.png")  # noqa: PTH104
    code, _, _ = run(capsys, "photos")
    assert code == 1
    assert str(place / "photos" / r"\xe8.png") in [article["data-image"] for article in Page().all("article")]


def test_a_model_that_can_not_tell_how_sure_it_is(place, capsys):
    save_fake_model(place / "m")
    run(capsys, "photos/a.png")
    page = Page()
    assert "data-sure" not in page.all("article")[0]
    assert not [text for text in page.said("span") if "%" in text]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "There is no INPUT. Name photos or a folder: showtell gallery photos/ --out album.html"),
        (["photos", "--data", "own.csv"], 2, "INPUT and --data can't be used together. Leave out one of them."),
        (["nothing"], 1, "nothing: there is no such file."),
        (["photos/b.png"], 1, "No photo could be captioned, so album.html was not written."),
        (["photos", "--beam", "0"], 2, "beam"),
    ],
)
def test_what_is_wrong_is_said_and_no_page_is_written(place, capsys, arguments, code, message):
    found, out, error = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in error
    assert not Path("album.html").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("photos.html", "photos.html can't be written: it is a folder. Name another file."),
        ("photos/a.png", "photos/a.png: a gallery is HTML. Name an .html file."),
        ("no/album.html", "no/album.html can't be written: No such file or directory. Name another file."),
    ],
)
def test_an_out_that_can_not_be_written(place, capsys, out, message):
    Path("photos.html").mkdir()
    before = Path("photos/a.png").read_bytes()
    assert main(["gallery", "-m", "m", "photos", "--out", out]) == 2
    assert capsys.readouterr().err == f"showtell: {message}\n"
    assert Path("photos/a.png").read_bytes() == before


def test_ctrl_c_keeps_what_is_done(place, capsys, monkeypatch):
    encode = FakeEngine.encode

    def interrupt(self, images):
        if len(self.batches) == 1:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(FakeEngine, "encode", interrupt)
    code, _, error = run(capsys, "photos", "--batch-size", "2")
    assert code == 130
    assert "Stopped by Ctrl-C after 1 of 4 photos. The page holds them." in error
    assert Page().said("textarea") == [GREEN]


def test_a_crash_leaves_the_last_page(place, capsys, monkeypatch):
    run(capsys, "photos/a.png")
    before = Path("album.html").read_bytes()
    monkeypatch.setattr("showtell.pages.gallery.article", lambda *_: 1 / 0)
    assert run(capsys, "photos")[0] == 1
    assert Path("album.html").read_bytes() == before


# ---- In a browser ----


@pytest.fixture
def open_page(browser, place, capsys):
    """A function that opens the page of `photos`; afterwards it must have asked nobody and complained of nothing."""
    contexts, complaints, asked = [], [], []
    run(capsys, "photos")

    def open_one(**options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto((place / "album.html").as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not complaints
    assert all(re.match(r"file:.*/album\.html$|data:|blob:", url) for url in asked)


def shown(page) -> list[str]:
    """The captions that are shown, in the page's order."""
    return page.evaluate("[...document.querySelectorAll('.photo:not([hidden]) textarea')].map((each) => each.value)")


def saved(page, button: str) -> Path:
    """The table that a button saves, in a folder far from the photos."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    folder = Path("downloads")
    folder.mkdir(exist_ok=True)
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def captions_of(table: Path) -> dict[str, tuple[str, ...]]:
    """As `showtell train` reads them."""
    dataset = load_data(f"table:{table}")
    assert not dataset.missing
    return {example.path.name: example.captions for example in dataset.examples}


def test_search_and_sort(open_page, keep):
    page = open_page()
    keep(page, "gallery")
    assert shown(page) == [GREEN, BLUE, RED]
    assert page.inner_text("#told") == "3 photos"
    page.select_option("#sort", "doubt")
    assert shown(page) == [BLUE, GREEN, RED]
    page.fill("#find", "TRIP/")
    assert shown(page) == [RED]
    assert page.inner_text("#told") == "1 of 3 photos"
    page.fill("#find", "green pic")
    assert shown(page) == [GREEN]
    page.fill("#find", "")
    page.get_by_label("Caption of photos/a.png").fill("a wall")
    page.select_option("#sort", "checked")
    assert shown(page) == ["a wall", BLUE, RED]
    page.select_option("#sort", "came")
    assert shown(page) == ["a wall", BLUE, RED]


def test_corrected_captions_are_saved_and_train_reads_them(open_page, keep):
    page = open_page()
    hostile, words = '"><script>alert(1)<|script>&amp; a.png', '=SUM(1), "two" men;\n  and a café – שלום'
    page.get_by_label(f"Caption of photos/trip/{hostile}").fill(words)
    page.get_by_label("Caption of photos/c.png").fill(" ")
    assert page.inner_text("#told") == "3 photos, 2 checked"
    keep(page, "gallery-checked")
    said = '=SUM(1), "two" men; and a café – שלום'
    assert captions_of(saved(page, "Save all")) == {"a.png": (GREEN,), hostile: (said,)}
    assert page.inner_text("#told") == "Saved 2 captions as album.csv"
    assert captions_of(saved(page, "Save checked (2)")) == {hostile: (said,)}
    content = Path("downloads/album.csv").read_bytes()
    assert content.startswith(b"image,caption\r\n")
    assert content.count(b"\r\n") == 3


def test_undo_brings_the_models_words_back(open_page):
    page = open_page()
    assert page.get_by_role("button", name="Save checked").is_disabled()
    page.get_by_label("Caption of photos/a.png").fill("a wall")
    assert page.locator(".mark:visible").count() == 1
    page.get_by_role("button", name="undo").click()
    assert shown(page) == [GREEN, BLUE, RED]
    assert page.locator(".mark:visible").count() == 0
    assert page.get_by_role("button", name="Save checked").is_disabled()


def test_enter_says_that_a_caption_is_right(open_page):
    """Who saves all trains on words that nobody has read; and the model, judged by its own words, gets no better."""
    page = open_page()
    page.locator("textarea").first.press("Enter")
    assert page.locator(".mark:visible").inner_text() == "right undo"
    assert page.evaluate("document.activeElement.value") == BLUE
    page.keyboard.type("not ")
    assert page.inner_text("#told") == "3 photos, 2 checked"
    assert captions_of(saved(page, "Save checked (2)")) == {"a.png": (GREEN,), "c.png": (f"not {BLUE}",)}
    page.reload()
    assert page.locator(".mark b:visible").all_inner_texts() == ["right", "edited"]
    page.get_by_role("button", name="undo").first.click()
    assert page.inner_text("#told") == "3 photos, 1 checked"


def test_edits_survive_a_reload_and_leaving_asks(open_page):
    page = open_page()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.locator("textarea").first.press_sequentially("!")
    page.reload()
    assert shown(page) == [f"!{GREEN}", BLUE, RED]
    assert page.inner_text("#told") == "3 photos, 1 checked"
    assert asked == ["beforeunload"]
    page.locator("textarea").nth(1).press_sequentially("!")
    saved(page, "Save all")
    page.reload()
    assert asked == ["beforeunload"]
    assert page.inner_text("#told") == "3 photos, 2 checked"


def test_all_of_it_works_by_keyboard(open_page):
    page = open_page()
    page.locator("#find").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "save-all"
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("a wall")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("a lake")
    assert shown(page) == ["a wall", "a lake", RED]
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert shown(page) == [GREEN, "a lake", RED]


def test_a_browser_without_storage(open_page, browser):
    """Some give a page from a file none: reading `localStorage` is an error there."""
    page = open_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('none'); } })")
    page.reload()
    page.locator("textarea").first.fill("a wall")
    assert page.inner_text("#told") == "3 photos, 1 checked"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_every_screen(open_page, keep, width, dark):
    scheme = "dark" if dark else "light"
    page = open_page(viewport={"width": width, "height": 600}, color_scheme=scheme, has_touch=width < 500)
    page.locator("textarea").first.fill("a long caption that goes on " * 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    field = page.locator("textarea").first
    assert field.evaluate("(field) => field.scrollHeight <= field.clientHeight + 1"), "all of a caption can be read"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 60) == dark
    page.mouse.wheel(0, 2000)
    page.wait_for_timeout(200)
    assert page.locator("#find").bounding_box()["y"] < 100, "the tools stay above"
    keep(page, f"gallery-{scheme}-{width}")
