"""`showtell data info`: the counts, and every kind of trouble in them."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from showtell.cli.commands.data import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images with two captions each; the text of one has three, one image is damaged."""
    for number in range(10):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a dog\na big dog runs\n")
    (tmp_path / "3.txt").write_text("a dog\na dog\na [red] dog\n")
    (tmp_path / "7.png").write_bytes(b"oops")
    return tmp_path


def test_json(folder: Path) -> None:
    result = CliRunner().invoke(app, ["info", f"folder:{folder}", "--json"])
    summary = json.loads(result.stdout)
    assert result.exit_code == 1, "an unreadable image is a failed input"
    assert summary["all"] == {
        "images": 10,
        "captions": 21,
        "captions_per_image": "2-3",
        "words": {"min": 2, "median": 2, "mean": 2.9, "max": 4},
    }
    assert {split: counts["images"] for split, counts in summary["splits"].items()} == {
        "train": 8,
        "dev": 1,
        "test": 1,
    }
    assert len(summary["unreadable"]) == 1
    assert "7.png" in summary["unreadable"][0]


def test_table(folder: Path) -> None:
    result = CliRunner().invoke(app, ["info", f"folder:{folder}"], env={"COLUMNS": "100"})
    assert "unreadable files: 1" in result.stdout
    assert "7.png is not an image" in result.stdout
    assert "missing files: 0" in result.stdout
    assert "note: There are no train, dev and test folders" in result.stdout
    row = next(line for line in result.stdout.splitlines() if "all" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "all",
        "10",
        "21",
        "2-3",
        "2",
        "2",
        "2.9",
        "4",
    ]


def test_without_reading_the_images(folder: Path) -> None:
    result = CliRunner().invoke(app, ["info", f"folder:{folder}", "--no-check"])
    assert result.exit_code == 0
    assert "unreadable files: not checked" in result.stdout


def test_long_lists_are_cut_in_the_table_only(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "here.png")
    rows = "".join(f"{number}.png,A\n" for number in range(15))
    (tmp_path / "t.csv").write_text(f"image,caption\nhere.png,A\n{rows}")
    result = CliRunner().invoke(app, ["info", f"table:{tmp_path}/t.csv"])
    assert "missing files: 15" in result.stdout
    assert "and 5 more (--json lists all)" in result.stdout
    assert result.exit_code == 0
    as_json = CliRunner().invoke(app, ["info", f"table:{tmp_path}/t.csv", "--json"])
    assert len(json.loads(as_json.stdout)["missing"]) == 15


def test_shapes() -> None:
    result = CliRunner().invoke(app, ["info", "shapes:20,pixels=64"])
    assert result.exit_code == 0
    assert "shapes" in result.stdout
