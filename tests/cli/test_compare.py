"""`showtell compare`: the table, the images that differ most, and a page that holds all of it."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from showtell.cli import main
from showtell.cli.commands.compare import short_names
from showtell.metrics import score
from showtell.metrics.significance import Difference
from showtell.pages.comparison import clear, interval_chart, verdict

WORDS = ["a", "the", "dog", "cat", "man", "runs", "jumps", "on", "in", "grass", "snow", "red", "small", "two"]
FAST = ("--metric", "BLEU", "--metric", "CIDEr", "--draws", "200")
VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page's elements and text; fails on tags that don't nest."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.source = Path(path).read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.opened: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bad system `worse/p.json`, a good one `better/p.json`, and `ref.csv` with the photo of one image."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    people = {f"{n}.jpg": " ".join(draw.choices(WORDS, k=8)) for n in range(40)}
    rows = "".join(f"{image},{caption}\n{image},{caption} again\n" for image, caption in people.items())
    Path("ref.csv").write_text("image,caption\n" + rows)
    for name, share in (("worse", 0.4), ("better", 0.8)):
        Path(name).mkdir()
        said = {i: " ".join(w if draw.random() < share else "thing" for w in c.split()) for i, c in people.items()}
        Path(name, "p.json").write_text(json.dumps(said))
    for image in people:
        Image.new("RGB", (600, 300), "red").save(image)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["compare", *arguments])
    out, error = capsys.readouterr()
    return code, out, error


def change(path: str, **captions: str | None) -> None:
    said = json.loads(Path(path).read_text()) | {f"{n.removeprefix('_')}.jpg": c for n, c in captions.items()}
    Path(path).write_text(json.dumps({image: caption for image, caption in said.items() if caption is not None}))


def test_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "worse/p.json", "better/p.json", "ref.csv", *FAST)
    assert (code, error) == (0, "")
    assert "A: worse/p.json\nB: better/p.json\n40 images, 80 references" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("CIDEr"))
    assert float(row[2]) - float(row[1]) == pytest.approx(float(row[3]), abs=0.11)
    assert row[3].startswith("+")
    assert float(row[4]) > 0
    assert row[-1] == row[-2] == f"{1 / 201:.4f}"
    assert re.search(r"By CIDEr, A is better on \d images, B on 3\d; equal on \d\.", out)
    assert len(re.findall(r"^  [AB] .*\d\.\d  \w", out, re.MULTILINE)) == 20
    assert re.search(r"^B metrics:BLEU,CIDEr-D\|images:40\|nrefs:2\|", out, re.MULTILINE)


def test_json_and_that_both_are_scored_on_the_same_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CIDEr's weights depend on the set of images: scoring A on 39 and B on 38 would compare two measures."""
    change("worse/p.json", _3=None, extra="a dog")
    change("better/p.json", _5=None, _6=None)
    change("worse/p.json", _6=None)
    code, out, error = run(capsys, "worse/p.json", "better/p.json", "ref.csv", *FAST, "--json", "--show", "3")
    found = json.loads(out)
    assert (code, error, found["images"]) == (0, "", 37)
    assert found["left_out"] == {
        "have no references": ["extra.jpg"],
        "have a caption in A only": ["5.jpg"],
        "have a caption in B only": ["3.jpg"],
        "have a caption in neither": ["6.jpg"],
    }
    rows = [line.split(",") for line in Path("ref.csv").read_text().splitlines()[1:]]
    left = {image: [c for i, c in rows if i == image] for image, _ in rows if image[0:-4] not in ("3", "5", "6")}
    said = json.loads(Path("worse/p.json").read_text())
    expected = score({i: said[i] for i in left}, left, metrics=["CIDEr"])
    cider = next(metric for metric in found["metrics"] if metric["metric"] == "CIDEr")
    assert cider["first"] == expected.scores["CIDEr"]
    assert cider["difference"] == pytest.approx(cider["second"] - cider["first"])
    assert len(found["most_different"]) == 3
    assert sum(found["wins"].values()) == 37
    _, _, error = run(capsys, "worse/p.json", "better/p.json", "ref.csv", *FAST)
    assert "1 images have a caption in B only; they are not compared: 3.jpg" in error


def test_a_system_equals_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "worse/p.json", "worse/p.json", "ref.csv", *FAST, "--html", "page.html")
    assert code == 0
    assert "equal on 40." in out
    page = Page("page.html")
    assert "Both have the same CIDEr." in page.text
    assert "There is no image to show." in page.text


def test_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It holds its photos, loads nothing, and captions are text, not markup."""
    change("better/p.json", _4="<script>alert(1)</script> & 'x'")
    Path("4.jpg").write_bytes(b"no photo")
    arguments = ("worse/p.json", "better/p.json", "ref.csv", *FAST, "--show", "40", "--html", "page.html")
    assert run(capsys, *arguments)[0] == 0
    page = Page("page.html")
    assert "<script>alert(1)</script> & 'x'" in page.text
    assert page.all("script") == []
    photos = page.all("img")
    assert 20 < len(photos) < 40
    assert all((photo["src"] or "").startswith("data:image/jpeg;base64,") and photo["alt"] for photo in photos)
    assert "Photo 4.jpg" not in [photo["alt"] for photo in photos]
    assert "default-src 'none'" in page.source
    assert not re.search(r"(src|href)=\"(?!data:|#)", page.source)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert all((link["href"] or "")[1:] in targets for link in page.all("a"))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", None) in {*targets, None}
    assert all(heading["scope"] for heading in page.all("th"))
    (chart,) = page.all("svg")
    assert chart["role"] == "img"
    assert "CIDEr +" in (chart["aria-label"] or "")
    assert "which is more than the choice of images explains" in page.text
    assert "prefers-color-scheme: dark" in page.source


def test_page_of_another_run_is_replaced_whole(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.html").write_text("old")
    run(capsys, "worse/p.json", "none.json", "ref.csv", "--html", "page.html")
    assert Path("page.html").read_text() == "old"
    code, _, error = run(capsys, "worse/p.json", "better/p.json", "ref.csv", "--html", "no/page.html")
    assert (code, "can't be written" in error) == (2, True)


def test_metrics_that_can_not_be_had(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    code, out, _ = run(capsys, "worse/p.json", "better/p.json", "ref.csv", *FAST, "--spice", "--html", "page.html")
    assert code == 1
    assert "SPICE is missing: SPICE needs Java" in out
    assert "SPICE is missing: SPICE needs Java" in Page("page.html").text
    code, _, error = run(capsys, "worse/p.json", "better/p.json", "ref.csv", "--metric", "SPICE")
    assert (code, "There is no score to compare by. SPICE needs Java" in error) == (1, True)


def test_wrong_arguments(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ("worse/p.json", "better/p.json", "ref.csv")
    assert "draws is 0." in run(capsys, *two, *FAST[:4], "--draws", "0")[2]
    assert "confidence is 1.5." in run(capsys, *two, *FAST, "--confidence", "1.5")[2]
    Path("other.json").write_text(json.dumps({"y": "a dog"}))
    code, _, error = run(capsys, "worse/p.json", "other.json", "ref.csv")
    assert (code, "No image of ref.csv has a caption in both worse/p.json and other.json." in error) == (1, True)


def test_names_that_tell_two_files_apart() -> None:
    assert short_names("runs/a.json", "runs/b.json") == ("a.json", "b.json")
    assert short_names("runs/a/p.json", "runs/b/p.json") == ("a/p.json", "b/p.json")
    assert short_names("p.json", "p.json") == ("p.json", "p.json")


def difference(first: float, second: float, interval: tuple[float, float], p: float) -> Difference:
    return Difference("CIDEr", first, second, interval, p, p)


def test_verdicts() -> None:
    assert "A’s CIDEr is higher by 10.0, which is more" in verdict(difference(0.6, 0.5, (-0.2, -0.05), 0.01), 0.95)
    assert "B’s CIDEr is higher by 10.0, but" in verdict(difference(0.5, 0.6, (-0.01, 0.2), 0.04), 0.95)
    assert not clear(difference(0.5, 0.6, (0.01, 0.2), 0.06), 0.95)
    assert clear(difference(0.5, 0.6, (0.01, 0.2), 0.06), 0.9)


def test_chart_of_a_system_that_scores_nothing() -> None:
    """A percentage of 0 is none."""
    assert "<svg" not in interval_chart([difference(0, 0.5, (0.1, 0.6), 0.01)])
