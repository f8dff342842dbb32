"""The table of metrics: what every metric promises, and that a new one needs no other place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from showtell.cli import main
from showtell.errors import MissingExtraError, ShowtellError, UsageError
from showtell.metrics import METRICS, Metric
from showtell.metrics.table import RANKING, find_metrics, metric_of
from tests.fake_model import picture, save_fake_model, use_fake_engine

SAID = ["a dog runs on the grass", "two red cars", "a man"]
PEOPLE = [["a dog runs on grass", "a dog is running"], ["two red cars"], ["the man sits", "a man on a bench", "a man"]]

WORDS = Metric(
    "Words",
    signature="words-1",
    statistics=lambda candidates, references: np.array([[float(len(c.split()))] for c in candidates]),
    higher_is_better=False,
    scale=1,
)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_scores_images_and_a_corpus_alike(name: str) -> None:
    metric = METRICS[name]
    try:
        metric.prepare(lambda fraction: None)
        statistics = metric.statistics(SAID, PEOPLE)
    except (MissingExtraError, ShowtellError) as error:
        pytest.skip(str(error))
    assert statistics.dtype == np.float64
    assert statistics.shape[0] == 3
    assert metric.from_sums(statistics, 1).shape == (3, len(metric.names))
    assert metric.from_sums(statistics.sum(0), 3).shape == (len(metric.names),)
    np.testing.assert_allclose(metric.from_sums(5 * statistics.sum(0), 15), metric.from_sums(statistics.sum(0), 3))


def test_names_belong_to_one_metric() -> None:
    names = [name for metric in METRICS.values() for name in metric.names]
    assert len(set(names)) == len(names)
    assert set(RANKING) <= set(names)
    assert all(name in metric_of(name).names for name in names)


def test_metrics_are_found_however_they_are_written() -> None:
    assert [metric.name for metric in find_metrics(["cider", "rouge-l", "Bleu"])] == ["BLEU", "ROUGE_L", "CIDEr"]
    assert "SPICE" not in [metric.name for metric in find_metrics()]
    with pytest.raises(UsageError, match=r"no metric BLUE\."):
        find_metrics(["BLEU", "BLUE"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table with one metric more, a model `m`, captions `a.json` and `b.json`, and references `ref.jsonl`."""
    monkeypatch.chdir(tmp_path)
    before = dict(METRICS)
    for name in before.keys() - {"BLEU", "CIDEr"}:
        del METRICS[name]
    METRICS["Words"] = WORDS
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    people = {"red.png": "a red one", "lime.png": "green", "blue.png": "the sky"}
    for image in people:
        picture(image.removesuffix(".png")).save(image)
    rows = [{"image": image, "caption": caption, "split": "test"} for image, caption in people.items()]
    Path("ref.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("a.json").write_text(json.dumps(people))
    Path("b.json").write_text(json.dumps({image: f"{caption} of nothing" for image, caption in people.items()}))
    yield
    METRICS.clear()
    METRICS.update(before)  # in its order


def test_a_new_metric_is_scored(place: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "b.json", "ref.jsonl", "--per-image", "images.csv"]) == 0
    out = capsys.readouterr().out
    assert ["Words", "4.0"] in [line.split() for line in out.splitlines()]
    assert "metrics:BLEU,CIDEr-D,words-1|" in out
    assert [line.rpartition(",")[2] for line in Path("images.csv").read_text().splitlines()] == [
        "Words", "5.0", "3.0", "4.0",
    ]  # fmt: skip
    assert main(["score", "b.json", "ref.jsonl", "--metric", "words"]) == 0
    assert "BLEU" not in capsys.readouterr().out


def test_a_new_metric_is_compared(place: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer words are better by this one: A wins."""
    arguments = ["a.json", "b.json", "ref.jsonl", "--metric", "words", "--draws", "50", "--html", "page.html"]
    assert main(["compare", *arguments]) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("Words"))
    assert row[:7] == ["Words", "2.0", "4.0", "+2.0", "+2.0", "..", "+2.0"]
    assert "By Words, A is better on 3 images, B on 0; equal on 0." in out
    page = Path("page.html").read_text()
    assert "<td>2.0</td><td>4.0</td>" in page
    assert sorted(re.findall(r"(\d\.\d+) <b>better</b>", page)) == ["1.0", "2.0", "3.0"]


def test_a_new_metric_is_evaluated(place: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "-m", "m", "--data", "table:ref.jsonl", "-o", "results.json"]) == 0
    assert "  Words       5.0\n" in capsys.readouterr().out
    assert json.loads(Path("results.json").read_text())["scores"]["Words"] == 5
