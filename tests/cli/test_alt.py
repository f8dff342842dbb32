"""`showtell alt`: what is proposed, what is written, and what is said of the rest."""

from pathlib import Path
from unicodedata import normalize

import pytest

from showtell.cli import main
from tests.fake_model import picture, save_fake_model, use_fake_engine

pytest.importorskip("pyromark", reason="the extra 'alt' is not installed")

PAGE = """<title>Zoo</title>\r
<img src="img/red.png"> <img src="img/red.png" alt="mine"> <img src="img/blue%20sky.png" alt="">\r
<p><img width=9 src='img/blue%20sky.png'><img src="https://x.org/a.png"></p>\r
"""
NOTES = "# Zoo\n\n![](img/red.png)\n\n```\n![](img/red.png)\n```\n"
RED, BLUE = "A red picture of nothing.", "A blue picture of nothing."


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: a model `m`, a page and notes that show two images."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    Path("site/img").mkdir(parents=True)
    picture("red").save("site/img/red.png")
    picture("blue").save("site/img/blue sky.png")
    Path("site/page.html").write_bytes(PAGE.encode())
    Path("site/notes.md").write_text(NOTES)
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["alt", "-m", "m", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_proposals(place, capsys):
    code, out, error = run(capsys, "site/page.html", "site/notes.md")
    assert (code, out) == (
        0,
        f"site/page.html:2\timg/red.png\t{RED}\n"
        f"site/page.html:3\timg/blue%20sky.png\t{BLUE}\n"
        f"site/notes.md:3\timg/red.png\t{RED}\n",
    )
    assert error == (
        "showtell: site/page.html:3: https://x.org/a.png is on another machine.\n"
        "showtell: 3 proposed; --write puts them into the files. Read them first: some are wrong.\n"
    )
    assert Path("site/page.html").read_bytes() == PAGE.encode()


def test_write(place, capsys):
    Path("site/page.html").chmod(0o640)
    code, _, error = run(capsys, "site/page.html", "site/notes.md", "--write")
    assert code == 0
    assert error.endswith("showtell: 3 of 3 written. Read them before you publish them: some are wrong.\n")
    expected = PAGE.replace('<img src="img/red.png">', f'<img alt="{RED}" src="img/red.png">')
    expected = expected.replace("<img width", f'<img alt="{BLUE}" width')
    assert Path("site/page.html").read_bytes() == expected.encode()
    assert Path("site/page.html").stat().st_mode & 0o777 == 0o640
    assert Path("site/notes.md").read_text() == NOTES.replace("![](img/red.png)\n\n", f"![{RED}](img/red.png)\n\n")
    assert sorted(path.name for path in Path("site").iterdir()) == ["img", "notes.md", "page.html"]
    assert run(capsys, "site/page.html", "site/notes.md", "--write")[1] == ""


@pytest.mark.parametrize("options", [[], ["--write"]])
def test_it_says_so_if_nothing_is_missing(place, options, capsys):
    """Of a drawing without a text, it says something else."""
    Path("site/page.html").write_text("<img src=img/red.png alt='a'><img src=img/red.png alt=''>")
    Path("site/notes.md").write_text("![a](img/red.png)\n\n<img src='img/red.png' alt='a'>\n")
    said = "showtell: 2 files with 4 images: none lacks alternative text.\n"
    assert run(capsys, "site/page.html", "site/notes.md", *options) == (0, "", said)
    Path("site/notes.md").write_text("No image.\n")
    one = "showtell: 1 file with 0 images: none lacks alternative text.\n"
    assert run(capsys, "site/notes.md", *options) == (0, "", one)
    Path("site/notes.md").write_text("![](a.svg)\n")
    assert "none lacks" not in run(capsys, "site/notes.md", *options)[2]


def test_decorative_and_root(place, capsys):
    Path("site/page.html").write_text("<img alt='' src=/img/red.png>")
    assert run(capsys, "site/page.html", "--decorative")[:2] == (0, "")
    code, out, _ = run(capsys, "site/page.html", "--decorative", "--root", "site")
    assert (code, out) == (0, f"site/page.html:1\t/img/red.png\t{RED}\n")


def test_missing_images_come_last_and_the_rest_is_written(place, capsys):
    Path("site/img/bad.png").write_bytes(b"no image")
    Path("site/notes.md").write_text("![](gone.png)\n![](img/bad.png)\n![](img/red.png)\n")
    code, out, error = run(capsys, "nowhere.html", "site/notes.md", "--write")
    assert (code, out) == (1, f"site/notes.md:3\timg/red.png\t{RED}\n")
    assert error.splitlines()[0] == "showtell: 1 of 1 written. Read them before you publish them: some are wrong."
    assert error.splitlines()[1] == "showtell: nowhere.html can't be read: No such file or directory."
    assert error.splitlines()[2].startswith("showtell: site/img/bad.png is not an image that showtell can read.")
    assert error.splitlines()[3:] == ["showtell: site/notes.md:1: there is no image gone.png."]
    assert Path("site/notes.md").read_text() == f"![](gone.png)\n![](img/bad.png)\n![{RED}](img/red.png)\n"


def test_markdown_without_its_extra(place, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyromark", None)
    code, out, error = run(capsys, "site/notes.md")
    assert (code, out) == (2, "")
    assert "Reading Markdown needs packages that are not installed. Run: pip install 'showtell[alt]'" in error
    assert run(capsys, "site/page.html")[0] == 0


def test_ctrl_c_changes_no_file(place, capsys, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("showtell.captioner.Captioner._stream", stopped)
    code, _, error = run(capsys, "site/page.html", "--write")
    assert code == 130
    assert "Stopped by Ctrl-C; no file was changed." in error
    assert Path("site/page.html").read_bytes() == PAGE.encode()


def test_model_that_says_nothing(place, capsys, monkeypatch):
    monkeypatch.setattr("showtell.cli.commands.alt.sentence", lambda caption: "")
    code, out, error = run(capsys, "site/notes.md")
    assert (code, out) == (1, "")
    assert "site/img/red.png: the model's caption is empty." in error


def test_photos_in_another_unicode_form_are_found(place, capsys):
    """A Mac's zip writes é as two letters, a page's author one: as it is, with %C3%A9 or &eacute;, in folders too."""
    folder = Path(normalize("NFD", "site/kafé"))
    folder.mkdir()
    picture("red").save(folder / normalize("NFD", "zoë.png"))
    Path("site/page.html").write_text(
        '<img src="kafé/zoë.png"><img src="kaf%C3%A9/zo%C3%AB.png"><img src="kaf&eacute;/zoë.png">'
    )
    Path("site/notes.md").write_text("![](kafé/zoë.png) ![](kaf%C3%A9/zoë.png)")
    code, out, _ = run(capsys, "site/page.html", "site/notes.md")
    assert (code, out.count(RED)) == (0, 5)
