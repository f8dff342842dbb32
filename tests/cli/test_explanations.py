"""`showtell caption --explain DIR`: the page, its pictures, and what must not happen to other files."""

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.captioner import load
from showtell.cli import main
from showtell.pages.explanations import open_explanations, panels_name
from tests.fake_model import CAPTIONS, FakeEngine, picture, png, save_fake_model, use_fake_engine


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: a model `m`, and three photos, two of one name."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    picture("red").save("photos/a.png")
    picture("lime").save("photos/b.png")
    picture("blue").save("photos/trip/a.png")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `showtell caption -m m ... --explain why`."""
    code = main(["caption", "-m", "m", *map(str, arguments), "--explain", "why"])
    out, error = capsys.readouterr()
    return code, out, error


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page() -> Page:
    return Page(Path("why/index.html").read_text(encoding="utf-8"))


def test_a_png_for_each_image_and_a_page_of_all(place, capsys):
    code, out, error = run(capsys, "photos")
    assert (code, len(out.splitlines()), error) == (0, 3, "")
    files = ["0001-a.png", "0002-b.png", "0003-a.png"]
    assert sorted(path.name for path in Path("why").iterdir()) == [*files, "index.html"]
    for file in files:
        with Image.open(f"why/{file}") as sheet:
            assert sheet.width > 5 * 240
    found = page()
    assert not found.open, "a tag is not closed"
    assert [link["href"] for link in found.all("a")] == files
    assert [text for text in found.texts if text in CAPTIONS] == CAPTIONS
    assert len(found.all("img")) == 3 * (1 + 5)  # the photo and a panel a word
    assert any("3 images." in text for text in found.texts)


def test_panels_are_of_what_the_model_saw(place, capsys):
    """The fake model looks at cell t % 4 for word t, of the picture that its preprocessing made."""
    run(capsys, "photos/a.png")
    with Image.open("why/0001-a.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    redness = pixels[..., 0] - pixels[..., 2]
    panels = [redness[17:257, left : left + 240] for left in range(17, 17 + 4 * 257, 257)]
    brightest = [np.add.reduceat(np.add.reduceat(each, [0, 120], 0), [0, 120], 1).argmax() for each in panels]
    assert brightest == [0, 1, 2, 3]


def test_the_page_makes_no_request_and_names_are_no_markup(place, capsys):
    Path("photos/b.png").rename("photos/<script>alert(1)<|script>&amp;#?.png")
    run(capsys, "photos")
    found = page()
    assert not found.all("script")
    assert any("photos/<script>alert(1)<|script>&amp;#?.png" in text for text in found.texts)
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert not found.all("link")
    policies = [meta["content"] for meta in found.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    text = Path("why/index.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"url\(|@import|https?:", text)


def test_stdin_is_read_once(place, capsys, monkeypatch):
    """The picture is needed twice, for the caption and for the panels."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(png("blue"))))
    code, out, _ = run(capsys, "-")
    assert (code, out) == (0, f"-\t{CAPTIONS[2]}\n")
    assert Path("why/0001-image.png").is_file()


def test_several_captions_of_an_image(place, capsys):
    """The best is explained, the others are listed."""
    run(capsys, "photos/a.png", "-n", "3")
    found = page()
    assert len(found.all("article")) == 1
    assert sum(text in CAPTIONS for text in found.texts) == 1
    assert len(found.all("li")) == 5 + 2


class BlindEngine(FakeEngine):
    """A model without attention."""

    def step(self, memory, state, tokens, parents, top):
        proposals, state = super().step(memory, state, tokens, parents, top)
        return type(proposals)(proposals.ids, proposals.log_probs), state


def test_a_model_without_attention_says_so(place, capsys, monkeypatch):
    monkeypatch.setattr("showtell.captioner._engine", lambda bundle, *_: BlindEngine(bundle.tokenizer))
    code, _, error = run(capsys, "photos")
    assert (code, error) == (0, "showtell: fake has no attention to show; why holds photos and captions.\n")
    assert [path.name for path in Path("why").iterdir()] == ["index.html"]
    found = page()
    assert len(found.all("img")) == 3
    assert any(text.startswith("This model has no attention to show") for text in found.texts)


def test_an_image_without_words_or_that_fails_keeps_its_place(place, capsys):
    """A caption may be empty, and a bad file must not stop the page."""
    Path("photos/b.png").write_bytes(b"nonsense")
    code, _, error = run(capsys, "photos", "--ban", "a", "--min-words", "0")
    assert code == 1
    assert "photos/b.png" in error
    assert len(page().all("article")) == 2
    run(capsys, "photos/a.png", *(f"--ban={word}" for word in {*" ".join(CAPTIONS).split()}))
    found = page()
    assert "(no words)" in found.texts
    assert len(found.all("img")) == 1


def test_nothing_that_could_be_captioned(place, capsys):
    Path("photos/b.png").write_bytes(b"nonsense")
    assert run(capsys, "photos/b.png")[0] == 1
    assert any("0 images." in text for text in page().texts)


def test_a_photo_that_is_gone_since(place, capsys, monkeypatch):
    """Files are read again for the page; one that a program moved away must not end the run."""
    original = load("m").__class__.picture
    calls = []

    def once(self, image):
        calls.append(image)
        if len(calls) > 1:
            Path("photos/a.png").unlink(missing_ok=True)
        return original(self, image)

    monkeypatch.setattr("showtell.captioner.Captioner.picture", once)
    assert run(capsys, "photos/a.png")[0] == 0
    assert any("the photo has gone since it was captioned" in text for text in page().texts)


def test_images_are_let_go(place):
    """A folder of a million photos must not be in memory at once, nor those that failed."""
    captioner = load("m")
    captions = captioner(picture("red"))
    with open_explanations(place / "why", captioner) as explanations:
        for number in range(4):
            explanations._read[number] = png("red")
            if number % 2:
                explanations.forget(number)
            else:
                explanations.add(number, "x", captions)
            assert not explanations._read
        explanations.forget(99)  # reading itself failed


def test_ctrl_c_keeps_what_is_done(place, capsys, monkeypatch):
    encode = FakeEngine.encode

    def interrupt(self, images):
        if len(self.batches) == 1:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(FakeEngine, "encode", interrupt)
    assert run(capsys, "photos", "--batch-size", "2")[0] == 130
    assert len(page().all("article")) == 2
    assert not page().open


def test_a_crash_leaves_the_last_page(place, capsys, monkeypatch):
    run(capsys, "photos/a.png")
    before = Path("why/index.html").read_bytes()
    monkeypatch.setattr("showtell.pages.explanations.panels", lambda *_: 1 / 0)
    assert run(capsys, "photos")[0] == 1
    assert Path("why/index.html").read_bytes() == before
    assert sorted(path.name for path in Path("why").iterdir()) == ["0001-a.png", "index.html"]


def test_somebodys_web_site_is_left_alone(place, capsys):
    Path("why").mkdir()
    Path("why/index.html").write_text("<h1>My photos</h1>")
    assert run(capsys, "photos") == (
        2,
        "",
        "showtell: why/index.html exists and was not made by --explain. Choose another --explain DIR.\n",
    )
    assert Path("why/index.html").read_text() == "<h1>My photos</h1>"


def test_a_page_of_before_is_replaced(place, capsys):
    run(capsys, "photos")
    assert run(capsys, "photos/b.png")[0] == 0
    assert len(page().all("article")) == 1


def test_what_is_wrong_is_said_on_one_line(place, capsys):
    Path("why").write_text("a file")
    code, out, error = run(capsys, "photos")
    assert (code, out) == (2, "")
    assert error == "showtell: why can't be written: Not a directory. Choose another --explain DIR.\n"
    code, _, error = run(capsys, "photos", "-o", "x.csv", "--resume")
    assert (code, error) == (
        2,
        "showtell: --explain shows all images, and --resume captions only some. Leave out one of the two.\n",
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("photos/Käfer 2.jpg", "0008-Käfer_2.png"),
        ("https://x.org/a/b.jpg?size=9/../..", "0008-image.png"),
        ("-", "0008-image.png"),
        ("x" * 300 + ".png", f"0008-{'x' * 60}.png"),
        ("a\nb\udcff/c\x1b\udcff.png", "0008-c_x1b_xff.png"),
    ],
)
def test_names_of_files(name: str, file: str) -> None:
    """Whatever an input is called, its panels are one plain file in DIR."""
    assert panels_name(7, name) == file
