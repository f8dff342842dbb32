"""`showtell train PHOTOS`: what is found, what is planned, and that it is never worse than what it starts from."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.bundle import load_bundle, shipped_models
from showtell.cli import main
from showtell.cli.commands.train import planned, recipes
from showtell.data import load
from showtell.data.dataset import OWN_SHARES, without_test
from showtell.errors import UsageError
from showtell.training.own import FEWEST_FOR_ENCODER, plan_for
from tests.tiny_model import save_tiny_model


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


def photos(count: int, name: str = "mine.csv") -> Path:
    """A table of photos, each of one colour, without a split."""
    random = np.random.default_rng(0)
    Path("im").mkdir(exist_ok=True)
    lines = ["image,caption"]
    for number in range(count):
        colour = ("red", "green", "blue")[number % 3]
        pixels = random.integers(0, 80, (32, 32, 3), np.uint8)
        pixels[..., number % 3] += 150
        Image.fromarray(pixels).save(f"im/{number}.png")
        lines.append(f"im/{number}.png,a {colour} wall of bricks")
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)


def test_one_command_trains_and_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    table, start = photos(24), save_tiny_model(Path("start"))
    assert main(["train", str(table), "--from", str(start), "--set", "stages.0.epochs=2"]) == 0
    out, error = capsys.readouterr()
    assert "mine.csv is read as table:mine.csv." in error
    assert "20 photos with 20 captions to learn from, 4 to choose by. It starts from start" in error
    assert f"images are split {OWN_SHARES}, the same way every time." in error
    assert out.splitlines()[1].startswith("    0 what training starts from")
    assert out.endswith(f"Model: {Path('runs/mine/model')}\nReport: {Path('runs/mine/report.html')}\n")
    words = load_bundle("runs/mine").tokenizer
    assert words.id_of("bricks") is not None
    lines = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert main(["caption", "im/0.png", "--model", "runs/mine"]) == 0


def test_what_training_starts_from_is_kept_where_nothing_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    table, start = photos(24), save_tiny_model(Path("start"))
    settings = ["--set", "stages.0.learning_rate=1e-12", "--set", "stages.0.epochs=2"]
    assert main(["train", str(table), "--from", str(start), *settings]) == 0
    assert "No epoch was better than the model that training started from, which is kept." in capsys.readouterr().err
    log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    assert load_bundle("runs/mine").config.scores == log[0]["scores"]


def test_a_split_of_ones_own_stays(tmp_path: Path) -> None:
    table = photos(10)
    lines = table.read_text().splitlines()
    splits = ["split", *["train"] * 6, *["dev"] * 2, *["test"] * 2]
    table.write_text("\n".join(f"{line},{split}" for line, split in zip(lines, splits, strict=True)))
    dataset = load(f"table:{table}")
    assert without_test(dataset) is dataset
    asked = load("table:im.csv,split=50/25/25") if photos(12, "im.csv") else None
    assert asked is not None
    assert without_test(asked) is asked


@pytest.mark.skipif("flickr8k" not in shipped_models(), reason="this checkout has no shipped model")
def test_the_plan_follows_from_how_many_photos_there_are() -> None:
    few, many = (plan_for(load(f"shapes:{count}"), "flickr8k", "own") for count in (30, 2 * FEWEST_FOR_ENCODER))
    assert few.recipe.start_counts
    assert len(few.recipe.stages) == 1
    assert few.recipe.stages[0].encoder_stages == 0
    assert [stage.encoder_stages for stage in many.recipe.stages] == [0, 9]
    assert few.recipe.stages[0].epochs > many.recipe.stages[0].epochs
    assert few.recipe.decoder.name == "adaptive_attention"


@pytest.mark.parametrize("minutes", [1, 5, 30])
def test_a_plan_keeps_to_its_minutes(minutes: int) -> None:
    plan = plan_for(load("shapes:3000"), None, "own", minutes)
    assert plan.minutes <= minutes or plan.recipe.stages[0].epochs == 1
    assert plan_for(load("shapes:3000"), None, "own").minutes > plan.minutes


def test_from_scratch_and_what_contradicts() -> None:
    table = str(photos(12))
    plan, _, said = planned(table, [], None, "none", None, [])
    assert plan.start_from is None
    assert "It starts from nothing" in said[-1]
    with pytest.raises(UsageError, match="--from and --minutes are for photos without a recipe"):
        planned(table, [], "shapes", "none", None, [])
    with pytest.raises(UsageError, match="shapes is a recipe, and --recipe names another"):
        planned("shapes", [], "flickr8k", None, None, [])
    with pytest.raises(UsageError, match="No data set is named"):
        planned("shapes", [], None, None, None, [])


def test_recipes_go_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipes"]) == 0
    listed = capsys.readouterr().out
    assert {line.split()[0] for line in listed.splitlines()} == set(recipes()) >= {"shapes", "flickr8k"}
    plan, dataset, said = planned("shapes", ["shapes:30"], None, None, None, ["stages.0.epochs=1"])
    assert (plan.name, len(dataset.examples), said) == ("shapes", 30, [])
    by_option, _, _ = planned("shapes:30", [], "shapes", None, None, [])
    assert by_option.name == "shapes"
