"""`showtell train PHOTOS`: what is found, what is planned, and that it is never worse than what it starts from."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.bundle import load_bundle, shipped_models
from showtell.cli import main
from showtell.cli.commands.train import planned, recipes
from showtell.confidence import FEWEST
from showtell.data import load
from showtell.data.dataset import OWN_SHARES, SHARES, without_test
from showtell.errors import UsageError
from showtell.metrics.tokens import _tokenizer
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
    assert "20 photos with 20 captions to train on, 4 for validation. It starts from start" in error
    assert f"images are split {OWN_SHARES}, the same way every time." in error
    assert out.splitlines()[1].startswith("    0 what training starts from")
    log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    kept = re.search(r"The model of epoch (\d) is kept: it has the best scores\.", error)
    assert kept is None or log[int(kept[1])]["scores"] == load_bundle("runs/mine").config.scores
    assert (kept is None) == ("No epoch was better" in error)
    assert load_bundle("runs/mine").config.confidence is None
    assert (
        "showtell: Captions of this model have no `confidence`: validation had 4 captioned dev photos, and fitting it "
        f"needs {FEWEST}. Fit it on more photos: showtell calibrate {Path('runs/mine')} --data SPEC.\n"
    ) in error
    assert error.count("have no `confidence`") == 1
    assert out.endswith(f"Model: {Path('runs/mine/model')}\nReport: {Path('runs/mine/report.html')}\n")
    words = load_bundle("runs/mine").tokenizer
    assert words.id_of("bricks") is not None
    lines = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert main(["caption", "im/0.png", "--model", "runs/mine"]) == 0


def test_what_training_starts_from_is_kept_where_nothing_is_better(capsys: pytest.CaptureFixture[str]) -> None:
    table, start = photos(24), save_tiny_model(Path("start"))
    rates = ["--set", "stages.0.learning_rate=1e-12", "--set", "stages.0.words_learning_rate=1e-12"]
    settings = [*rates, "--set", "stages.0.epochs=2"]
    assert main(["train", str(table), "--from", str(start), *settings]) == 0
    assert "No epoch was better than the model that training started from, which is kept." in capsys.readouterr().err
    log = [json.loads(line) for line in Path("runs/mine/log.jsonl").read_text().splitlines()]
    assert load_bundle("runs/mine").config.scores == log[0]["scores"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 80, 101])
def test_evaluate_never_tests_on_photos_that_training_learnt_from(count: int) -> None:
    """`train` has no test photos and `evaluate` has; yet both train on the same ones."""
    evaluated = load(f"table:{photos(count)}")
    learnt = without_test(evaluated)
    assert any(SHARES in note for note in evaluated.notes)
    assert any(OWN_SHARES in note for note in learnt.notes)
    assert learnt.split("train") == evaluated.split("train")
    assert "test" not in learnt.splits


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


def test_a_model_learns_another_language(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written without spaces, after English; and the recipe says what was found, or told."""
    table, start = photos(24), save_tiny_model(Path("start"))
    text = table.read_text()
    for english, chinese in (("a red wall of bricks", "一面红色的砖墙"), ("a green wall of bricks", "一面绿色的砖墙")):
        text = text.replace(english, chinese)
    table.write_text(text.replace("a blue wall of bricks", "一面蓝色的砖墙"), encoding="utf-8")
    pytest.importorskip("sacrebleu")
    rates = ["--set", "stages.0.learning_rate=5e-3", "--set", "stages.0.words_learning_rate=2e-2"]
    settings = ["--language", "zh", "--set", "stages.0.epochs=20", *rates]
    assert main(["train", str(table), "--from", str(start), *settings]) == 0
    bundle = load_bundle("runs/mine")
    assert bundle.tokenizer.words("一面红色的砖墙") == list("一面红色的砖墙")
    capsys.readouterr()
    assert main(["caption", "im/0.png", "--model", "runs/mine", "--format", "txt"]) == 0
    assert set(Path("im/0.txt").read_text("utf-8").strip()) <= set("一面红绿蓝色的砖墙")
    assert main(["train", str(table), "--language", "xx"]) == 2
    assert "there is no language xx; choose from ar, bg" in capsys.readouterr().err


def test_a_language_that_cannot_be_scored_is_told_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, start = photos(24), save_tiny_model(Path("start"))
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    _tokenizer.cache_clear()
    assert main(["train", str(table), "--from", str(start), "--language", "de"]) == 2
    assert "Scoring captions in German needs" in capsys.readouterr().err


def test_captions_may_be_as_long_as_those_to_learn_from() -> None:
    table = photos(24)
    table.write_text(table.read_text().replace("of bricks", "of bricks " + "and more bricks " * 9))
    recipe = plan_for(without_test(load(f"table:{table}")), None, "own").recipe
    assert recipe.search.max_words == 32
    assert recipe.max_words == 40


@pytest.mark.skipif("flickr8k" not in shipped_models(), reason="this checkout has no shipped model")
def test_the_plan_follows_from_how_many_photos_there_are() -> None:
    few, many = (plan_for(load(f"shapes:{count}"), "flickr8k", "own") for count in (30, 2 * FEWEST_FOR_ENCODER))
    assert few.recipe.start_counts
    assert len(few.recipe.stages) == 1
    assert few.recipe.stages[0].encoder_stages == 0
    assert [stage.encoder_stages for stage in many.recipe.stages] == [0, 9]
    assert few.recipe.stages[0].epochs > many.recipe.stages[0].epochs
    assert few.recipe.decoder.name == "adaptive_attention"
    assert few.recipe.stages[0].patience is None, "the scores of few photos are no reason to stop"
    assert few.recipe.stages[0].words_learning_rate > few.recipe.stages[0].learning_rate


@pytest.mark.parametrize("minutes", [1, 5, 30])
def test_a_plan_keeps_to_its_minutes(minutes: int) -> None:
    plan = plan_for(load("shapes:3000"), None, "own", minutes)
    assert plan.minutes <= minutes or plan.recipe.stages[0].epochs == 1
    assert plan_for(load("shapes:3000"), None, "own").minutes > plan.minutes


def test_from_scratch_and_what_contradicts() -> None:
    table = str(photos(12))
    plan, _, said = planned(table, [], None, "none", None, [])
    assert plan.start_from is None
    assert "It starts from scratch" in said[-1]
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
