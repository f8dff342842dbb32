import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from showtell.errors import DataError
from showtell.pages.charts import apart, histogram, line_chart, nice_ticks, short
from showtell.pages.training import showcase, write_report

VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page's elements and text; fails on tags that don't nest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.opened: list[str] = []
        self.feed(path.read_text("utf-8"))
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


def epoch(number: int, cider: float) -> dict[str, Any]:
    return {
        "epoch": number,
        "step": 100 * number,
        "loss": 4.0 / number,
        "learning_rate": 0.001 / number,
        "captions_per_second": 1234.5,
        "padding": 0.061,
        "minutes": 2.5 * number,
        "scores": {"CIDEr": cider, "BLEU-4": cider / 3, "Novelty": 0.4},
    }


def sample(number: int) -> dict[str, Any]:
    return {
        "image_id": f"photo-{number}.jpg",
        "caption": f"a red ball number {number}",
        "words": ["a", "red", "ball", "number", str(number)],
        "log_prob": -7.25,
        "references": [f"ball {number} is red .", "a ball"],
        "scores": {"CIDEr": number / 10},
        "image": f"images/{number}.jpg",
        "attention": f"attention/{number}.npy",
    }


def write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three epochs with 30 validation images."""
    folder = tmp_path / "my run"
    (folder / "images").mkdir(parents=True)
    (folder / "attention").mkdir()
    (folder / "recipe.yaml").write_text("name: tiny # <b>\n", "utf-8")
    write_lines(folder / "log.jsonl", [epoch(1, 0.2), epoch(2, 0.5), epoch(3, 0.4)])
    write_lines(folder / "samples.jsonl", [sample(n) for n in range(30)])
    for n in range(30):
        picture = Image.new("RGB", (96, 64), "white")
        ImageDraw.Draw(picture).ellipse((n, 10, n + 30, 40), fill="red")
        picture.save(folder / f"images/{n}.jpg")
        grids = np.random.default_rng(n).dirichlet(np.full(49, 0.3), size=6).reshape(6, 7, 7)
        np.save(folder / f"attention/{n}.npy", grids.astype(np.float16))  # the sixth is <end>'s
    return folder


def test_the_whole_page(run: Path):
    path = write_report(run)
    page = Page(path)
    assert path == run / "report.html"
    assert "my run" in page.text
    assert "The best of 3 validations: epoch 2" in page.text
    assert [section["id"] for section in page.all("section")] == ["charts", "scores", "captions", "recipe"]
    assert len(page.all("svg")) == 4
    assert "name: tiny # <b>" in page.text
    assert path.stat().st_mode & 0o044 == 0o044  # a temporary file's own mode would keep the report private


def test_the_best_epoch_is_marked_once(run: Path):
    page = Page(write_report(run))
    assert [row.get("class") for row in page.all("tr")].count("best") == 1
    assert "2best" in page.text


def test_shows_best_middle_and_worst_without_repeating(run: Path):
    page = Page(write_report(run))
    shown = [int(n) for n in re.findall(r"photo-(\d+)\.jpg", page.text)]
    assert shown == [29, 28, 27, 26, 25, 24, 17, 16, 15, 14, 13, 12, 0, 1, 2, 3, 4, 5]
    assert "ball 29 is red ." in page.text
    assert len(page.all("details")) == 18
    assert sum("open" in details for details in page.all("details")) == 6


@pytest.mark.parametrize("count", range(8))
def test_few_samples_are_shared_out(count: int):
    groups = showcase([sample(n) for n in range(count)])
    shown = [record["image_id"] for group in groups.values() for record in group]
    assert len(shown) == len(set(shown))
    assert len(shown) == count


def test_nothing_is_requested_from_anywhere(run: Path):
    """Guards the promise that the page can be mailed and opened offline."""
    page = Page(write_report(run))
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert str(attributes.get("href", "#")).startswith("#")
        assert "url(" not in str(attributes.get("style", ""))
    text = write_report(run).read_text("utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_page_is_accessible(run: Path):
    page = Page(write_report(run))
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] and image["width"] and image["height"] for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))
    assert len(page.all("h1")) == 1
    assert len(page.all("figcaption")) == len(page.all("figure"))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    pointed = [str(attributes["aria-labelledby"]) for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(pointed) <= set(identifiers)
    assert "prefers-color-scheme: dark" in (run / "report.html").read_text("utf-8")


def test_everything_from_outside_is_escaped(run: Path):
    """Guards against captions, references, names or recipes that become markup."""
    evil = '<script>alert("x")</script>'
    record = {**sample(0), "caption": evil, "words": [evil], "references": [evil], "image_id": evil}
    write_lines(run / "samples.jsonl", [record])
    write_lines(run / "log.jsonl", [{**epoch(1, 0.1), "scores": {"CIDEr": 0.1, evil: 0.2}}])
    (run / "recipe.yaml").write_text(evil, "utf-8")
    path = write_report(run)
    page = Page(path)
    assert page.all("script") == []
    assert page.text.count(evil) >= 6
    assert "<script" not in path.read_text("utf-8")


def test_an_empty_folder_gives_sentences(tmp_path: Path):
    page = Page(write_report(tmp_path))
    assert "This run has logged nothing." in page.text
    for name in ("log.jsonl", "samples.jsonl", "recipe.yaml"):
        assert f"There is no {name} in the run folder." in page.text
    assert page.all("svg") == []
    assert page.all("table") == []


def test_an_empty_log_leaves_the_captions(run: Path):
    (run / "log.jsonl").write_text("", "utf-8")
    page = Page(write_report(run))
    assert "There is no table without a log." in page.text
    assert len(page.all("svg")) == 1  # the lengths
    assert len(page.all("article")) == 18


def test_a_line_cut_by_a_kill_is_left_out(run: Path):
    with (run / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "lo')
    assert "Lines of log.jsonl that can’t be read: 1 of 4." in Page(write_report(run)).text


def test_what_is_not_a_number_is_not_drawn(run: Path):
    """Guards against a diverged run (NaN), null scores and strings ending in an SVG's coordinates."""
    strange = {
        "epoch": 4,
        "step": 400,
        "loss": float("nan"),
        "learning_rate": "0.1",
        "scores": {"CIDEr": None},
    }
    write_lines(run / "log.jsonl", [epoch(1, 0.2), strange, {"epoch": 5, "step": 500, "scores": 3}, 7])
    path = write_report(run)
    assert "nan" not in re.findall(r"<svg.*</svg>", path.read_text("utf-8"))[0].lower()
    assert "The best of 3 validations: epoch 1" in Page(path).text


def test_epochs_that_start_again_are_drawn_over_steps(run: Path):
    """Guards against a second stage drawn over the first one."""
    second = [{**epoch(n, 0.6), "step": 300 + 100 * n} for n in (1, 2)]
    write_lines(run / "log.jsonl", [epoch(1, 0.2), epoch(2, 0.3), epoch(3, 0.4), *second])
    labels = [str(svg["aria-label"]) for svg in Page(write_report(run)).all("svg")]
    assert labels[0].startswith("Training loss, by step")


def test_a_self_critical_stage_shows_its_reward_and_no_loss(run: Path):
    """Its loss is near zero and would flatten the curve of the stage before."""
    rewarded = [{**epoch(n, 0.5), "loss": -0.01, "reward": 0.4 + n / 10} for n in (3, 4)]
    write_lines(run / "log.jsonl", [epoch(1, 0.2), epoch(2, 0.3), *rewarded])
    charts = {
        str(svg["aria-label"]).split(",")[0]: str(svg["aria-label"]) for svg in Page(write_report(run)).all("svg")
    }
    assert "-0.01" not in charts["Training loss"]
    assert "0.8" in charts["Reward"]


def test_one_validation_is_enough(run: Path):
    write_lines(run / "log.jsonl", [epoch(1, 0.0)])
    assert "Validated once" in Page(write_report(run)).text


def damage_photo(run: Path) -> None:
    (run / "images/29.jpg").write_bytes(b"not a photo")


def remove_photo(run: Path) -> None:
    (run / "images/29.jpg").unlink()


def remove_attention(run: Path) -> None:
    (run / "attention/29.npy").unlink()


def empty_attention(run: Path) -> None:
    (run / "attention/29.npy").write_bytes(b"")


def pickle_attention(run: Path) -> None:
    np.save(run / "attention/29.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def shorten_attention(run: Path) -> None:
    np.save(run / "attention/29.npy", np.ones((2, 7, 7)))


def number_attention(run: Path) -> None:
    np.save(run / "attention/29.npy", np.float32(1))


@pytest.mark.parametrize(
    "harm",
    [
        damage_photo,
        remove_photo,
        remove_attention,
        empty_attention,
        pickle_attention,
        shorten_attention,
        number_attention,
    ],
)
def test_a_damaged_sample_keeps_its_caption(run: Path, harm: Callable[[Path], None]):
    harm(run)
    page = Page(write_report(run))
    assert "a red ball number 29" in page.text
    assert len(page.all("details")) == 17
    assert ("Its attention can’t be read." in page.text) == ("attention" in harm.__name__)


def test_samples_without_pictures_or_scores(run: Path):
    bare = [{"image_id": n, "caption": "a ball", "scores": {"CIDEr": 0.5}, "references": None} for n in range(4)]
    write_lines(run / "samples.jsonl", [*bare, {"image_id": 5, "caption": "unscored"}])
    page = Page(write_report(run))
    assert len(page.all("article")) == 4
    assert page.all("img") == []
    write_lines(run / "samples.jsonl", [{"caption": "unscored"}])
    assert "There are no captions with a CIDEr of their own to show." in Page(write_report(run)).text


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"There is no run folder .*nowhere"):
        write_report(tmp_path / "nowhere")


def test_a_failure_leaves_the_old_report(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the atomic write: half a page must never replace a whole one."""
    before = write_report(run).read_bytes()

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert list(run.glob(".report*")) == []


def test_ticks_are_round_and_enclose():
    assert nice_ticks(0, 0.57) == [0, 0.2, 0.4, 0.6]
    assert nice_ticks(2.07, 4.17) == [2, 3, 4, 5]
    assert nice_ticks(0, 0.001) == [0, 0.0005, 0.001]
    for low, high in ((0, 0), (5, 5), (-3, -3), (1, 1e6), (1e-9, 2e-9), (0, 1e-14)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low <= high <= ticks[-1]
        assert 2 <= len(set(ticks)) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5634, "0.563"), (12, "12"), (0.0003, "3e−4"), (-0.25, "−0.25"), (12345, "12,345")],
)
def test_short_numbers(value: float, text: str):
    assert short(value) == text


def test_labels_are_pushed_apart_within_the_plot():
    placed = apart([50, 52, 51, 200], 10, 200)
    assert sorted(placed) == [50, 65, 80, 200]
    assert placed[0] < placed[2] < placed[1]
    assert max(apart([199, 200, 200], 10, 200)) == 200


def test_charts_of_one_point():
    """Guards against a division by an empty range."""
    assert "<circle" in line_chart({"loss": [(1, 2.0)]}, title="Loss", below="epoch")
    assert "<rect" in histogram({5: 1.0}, {}, names=("a", "b"), below="words")
