"""Whole runs on drawn scenes with a small random encoder: seconds, and everything that a real run does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

import showtell
from showtell.bundle import load_bundle
from showtell.data import joined, load
from showtell.data.dataset import Dataset
from showtell.errors import BundleError, DataError, UsageError
from showtell.metrics.table import rank_of
from showtell.models.encoders import build_encoder
from showtell.tokenizer import TokenizerConfig
from showtell.training.checkpoint import read_state
from showtell.training.events import Epoch, Event, Note
from showtell.training.recipe import Recipe, load_recipe
from showtell.training.run import with_new_words
from showtell.training.trainer import train

TINY = """
name: tiny
encoder: {name: efficientnet_lite0, weights: random, size: 64}
tokenizer: {min_count: 1}
decoder: {name: show_attend_and_tell, embedding_width: 24, hidden_width: 24, attention_width: 16, dropout: 0.2}
stages:
  - {kind: cross_entropy, epochs: 2, batch_images: 4, average: 0.9, best_epochs: 2, scheduled_sampling: 0.3,
     doubly_stochastic: 0.5}
  - {kind: cross_entropy, epochs: 1, batch_images: 4, learning_rate: 1.0e-4}
search: {beam: 2, max_words: 12}
checkpoint_seconds: 0
"""
TINY_SECOND_STAGE = TINY[TINY.rindex("  - {kind") : TINY.index("search")]
REWARDED = (
    "  - {kind: self_critical, epochs: 1, batch_images: 4, samples: 2, bleu4: 0.5, average: 0.9, max_words: 12}\n"
)
SPEC = "shapes:60"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random encoders differ from run to run unless the cache is theirs alone; and a test leaves nothing behind."""
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


def run(recipe: Recipe, folder: Path, **options: object) -> list[Event]:
    events: list[Event] = []
    train(recipe, load(SPEC), folder, tell=events.append, **options)  # type: ignore[arg-type]
    return events


def test_two_data_sets_in_one_run(recipe: Path, tmp_path: Path) -> None:
    """The first one chooses the model, each has its scores, and one's photos are shown twice."""
    events: list[Event] = []
    folder = tmp_path / "run"
    both = joined([load("shapes:60"), load("shapes:40,seed=7,times=1.5")])
    train(load_recipe(recipe, ["stages.0.epochs=1"]), both, folder, tell=events.append)
    line = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert list(line["scores_of"]) == ["shapes-1", "shapes-2"]
    assert line["scores"] == line["scores_of"]["shapes-1"] != line["scores_of"]["shapes-2"]
    first = next(event for event in events if isinstance(event, Epoch))
    assert first.all_captions == sum(
        round(times * sum(len(e.captions) for e in both.split("train") if e.dataset == name))
        for name, times in (("shapes-1", 1), ("shapes-2", 1.5))
    )
    card = (folder / "model" / "README.md").read_text()
    assert "| metric | shapes-1 | shapes-2 |" in card
    assert f"{len(both.split('train'))} captioned images" in card
    assert "CIDEr, shapes-2" in (folder / "report.html").read_text()
    once = joined([load("shapes:60"), load("shapes:40,seed=7")])
    with pytest.raises(UsageError, match="different times of data sets"):
        train(load_recipe(recipe, ["stages.0.epochs=1"]), once, folder, resume=True)


def test_a_run_leaves_all_that_it_promises(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    events = run(load_recipe(recipe), folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [event.line for event in events if isinstance(event, Epoch) and event.line] == lines
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["stage"] for line in lines] == [0, 0, 0, 1]
    assert [line.get("mean_of") for line in lines] == [None, None, [1, 2], None]
    epochs = [line for line in lines if "mean_of" not in line]
    assert all(0 <= line["padding"] < 0.5 and line["captions_per_second"] > 0 for line in epochs)
    minutes = [line["minutes"] for line in lines]
    assert minutes == sorted(minutes)
    assert "report.html" in {path.name for path in folder.iterdir()}
    assert list((folder / "tensorboard").iterdir())
    assert (folder / "model" / "README.md").read_text().count("CIDEr")
    assert load_recipe(folder / "recipe.yaml") == load_recipe(recipe)
    captioner = showtell.load(folder)
    assert captioner.config.scores["CIDEr"] == max(line["scores"]["CIDEr"] for line in lines)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    example = load(SPEC).split("dev")[0]
    assert captioner(example.read())[0].text == next(s for s in samples if s["image_id"] == example.image_id)["caption"]


def test_samples_are_rewarded_after_cross_entropy(recipe: Path, tmp_path: Path) -> None:
    """A recipe of both kinds of stages: what the samples are like stands in the log."""
    recipe.write_text(TINY.replace("search:", f"{REWARDED}search:"))
    events = run(load_recipe(recipe), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [0, 0, 0, 1, 2]
    names = {"reward", "advantage_std", "sample_CIDEr", "sample_BLEU-4", "sample_words", "unfinished"}
    assert [bool(names & line.keys()) for line in lines] == [False, False, False, False, True]
    last = lines[-1]
    assert names <= last.keys()
    assert last["reward"] == pytest.approx(last["sample_CIDEr"] + 0.5 * last["sample_BLEU-4"])
    assert 0 < last["sample_words"] <= 12
    ends = [event for event in events if isinstance(event, Epoch) and event.line and "mean_of" not in event.line]
    assert [event.captions for event in ends] == [event.all_captions for event in ends]


def test_a_stage_ends_with_the_mean_of_its_best_epochs(recipe: Path, tmp_path: Path) -> None:
    """Of three epochs the two best; weights that no epoch had, kept as the model if they are better than all."""
    settings = ["stages.0.epochs=3", "validation_images=2"]
    folder = tmp_path / "run"
    recipe.write_text(TINY.replace(TINY_SECOND_STAGE, ""))
    run(load_recipe(recipe, settings), folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    best = sorted(lines[:3], key=lambda line: rank_of(line["scores"]), reverse=True)[:2]
    best.sort(key=lambda line: line["epoch"])
    assert lines[3]["mean_of"] == [line["epoch"] for line in best]
    first, second = (load_file(folder / f"checkpoint/epoch_{line['epoch']}.safetensors") for line in best)
    assert len(list((folder / "checkpoint").glob("epoch_*"))) == 2
    mean = load_file(folder / "checkpoint/checkpoint.safetensors")
    for name in ("decoder.embedding.weight", "decoder.output.weight"):
        np.testing.assert_allclose(mean[f"model/{name}"], (first[name] + second[name]) / 2, atol=1e-6)


def test_the_next_stage_starts_from_the_best_model(recipe: Path, tmp_path: Path) -> None:
    """Not from the last one: a ruinous epoch at the end of a stage is not passed on."""
    settings = ["stages.1.learning_rate=1e-12", "stages.1.weight_decay=0", "stages.0.best_epochs=0"]
    folder = tmp_path / "run"
    run(load_recipe(recipe, [*settings, "stages.0.epochs=3"]), folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["scores"]["CIDEr"] == pytest.approx(max(line["scores"]["CIDEr"] for line in lines), abs=1e-6)


def test_a_run_starts_from_the_weights_and_words_of_another(recipe: Path, tmp_path: Path) -> None:
    """With next to no learning rate it ends where the other did, also through a resumed run and other captions."""
    run(load_recipe(recipe), tmp_path / "first")
    recipe.write_text(f"{TINY.partition('stages:')[0]}stages:\n{REWARDED}search: {{beam: 2, max_words: 12}}\n")
    barely = ["stages.0.learning_rate=1e-12", "stages.0.weight_decay=0", f"start_from={tmp_path / 'first'}"]
    first, second = load_file(tmp_path / "first/model/model.safetensors"), tmp_path / "second"
    train(load_recipe(recipe, barely), load("shapes:40"), second)
    for name, weights in load_file(second / "model/model.safetensors").items():
        np.testing.assert_allclose(weights, first[name], atol=1e-6, err_msg=name)
    words = (tmp_path / "first/model/tokenizer.json").read_bytes()
    assert (second / "model/tokenizer.json").read_bytes() == words
    train(load_recipe(recipe, barely), load("shapes:40"), second, resume=True)


def test_a_start_that_does_not_fit_is_named(recipe: Path, tmp_path: Path) -> None:
    run(load_recipe(recipe, ["stages.0.epochs=1", "validation_images=2"]), tmp_path / "first")
    start = f"start_from={tmp_path / 'first'}"
    with pytest.raises(UsageError, match=r"not those of this recipe's model.*config\.json"):
        run(load_recipe(recipe, [start, "decoder.hidden_width=16"]), tmp_path / "second")
    with pytest.raises(BundleError, match="no model folder"):
        run(load_recipe(recipe, [f"start_from={tmp_path / 'nowhere'}"]), tmp_path / "third")


def test_refuses_to_write_over_a_run(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plan = load_recipe(recipe, ["stages.0.epochs=1", "validation_images=2"])
    run(plan, folder)
    with pytest.raises(UsageError, match=r"holds a run already.*--resume"):
        run(plan, folder)
    with pytest.raises(UsageError, match="another recipe: stages"):
        run(load_recipe(recipe), folder, resume=True)
    before = load_file(folder / "model" / "model.safetensors")
    run(plan, folder, resume=True)  # there is nothing left to do
    after = load_file(folder / "model" / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("begun", "resumed"), [("bf16", "float32"), ("'no'", "auto")])
def test_a_run_goes_on_in_another_precision(begun: str, resumed: str, recipe: Path, tmp_path: Path) -> None:
    """`auto` may mean another on this machine, and was not the default of runs from before it."""
    settings = ["stages.0.epochs=1", "validation_images=2"]
    run(load_recipe(recipe, [*settings, f"precision={begun}"]), tmp_path / "run")
    run(load_recipe(recipe, [*settings, f"precision={resumed}"]), tmp_path / "run", resume=True)
    assert load_recipe(tmp_path / "run/recipe.yaml").precision == resumed
    weights = load_file(tmp_path / "run/checkpoint/checkpoint.safetensors")
    assert {value.dtype for name, value in weights.items() if not name.startswith("random/")} <= {
        np.dtype("float32"),
        np.dtype("int64"),  # what is counted
    }


def test_a_damaged_checkpoint_is_named(recipe: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoint" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"nothing of use")
    with pytest.raises(DataError, match=r"checkpoint\.safetensors can't be read"):
        run(load_recipe(recipe), tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_stops_the_run(recipe: Path, tmp_path: Path) -> None:
    plan = load_recipe(recipe, ["stages.0.learning_rate=1e30", "stages.0.warmup=0", "stages.0.clip=1e30"])
    with pytest.raises(DataError, match=r"no longer a number.*learning_rate"):
        run(plan, tmp_path / "run")


def test_fine_tuning_moves_the_last_stages_only(recipe: Path, tmp_path: Path) -> None:
    """Frozen stages keep their weights, and batch norm its statistics everywhere."""
    settings = ["stages.1.encoder_stages=2", "stages.1.encoder_learning_rate=0.01", "stages.0.epochs=1"]
    plan = load_recipe(recipe, settings)
    # The first stage never learns, so the second one's first model is the best.
    run(plan.model_copy(update={"stages": plan.stages[1:]}), tmp_path / "tuned")
    tuned = load_file(tmp_path / "tuned" / "model" / "model.safetensors")
    frozen_run = load_recipe(recipe, ["stages.0.epochs=1"])
    run(frozen_run.model_copy(update={"stages": frozen_run.stages[1:]}), tmp_path / "frozen")
    frozen = load_file(tmp_path / "frozen" / "model" / "model.safetensors")
    moved = {n for n in tuned if n.startswith("encoder.") and not np.array_equal(tuned[n], frozen[n])}
    assert moved
    assert not any("running" in name for name in moved)
    assert any("encoder.stem" in name for name in tuned.keys() - moved) or len(moved) < len(tuned) / 2


def test_photos_that_cannot_be_read_are_left_out(recipe: Path, tmp_path: Path) -> None:
    """With cached features and with live pictures: one sentence, and the rest are trained on."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, example in enumerate(load("shapes:30").examples):
        Image.fromarray(example.read()).save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text("\n".join(example.captions))
    (photos / "3.png").write_bytes(b"no picture")
    for settings in (["stages.0.epochs=1"], ["stages.0.epochs=1", "stages.0.encoder_stages=1"]):
        plan = load_recipe(recipe, [*settings, "stages.1.encoder_stages=1"])
        events: list[Event] = []
        train(plan, load(f"folder:{photos}"), tmp_path / str(len(settings)), tell=events.append)
        assert next(event.text for event in events if isinstance(event, Note)).count("3.png")
        assert len([event for event in events if isinstance(event, Note) and "3.png" in event.text]) == 1


def captioned(*captions: str, ids: str = "abcdefgh") -> Dataset:
    """Eight drawn scenes with these captions in turn, six of them for training."""
    examples = load("shapes:8").examples
    return Dataset(
        "scenes",
        tuple(
            replace(
                example, image_id=ids[n], split="train" if n < 6 else "dev", captions=(captions[n % len(captions)],)
            )
            for n, example in enumerate(examples)
        ),
    )


def notes(recipe: Recipe, dataset: Dataset, folder: Path, **options: bool) -> list[str]:
    events: list[Event] = []
    train(recipe, dataset, folder, tell=events.append, **options)
    return [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (captioned("a red ball", "a blue ball", "a green box"), "words, training captions, validation captions"),
        (captioned("a red ball", "a blue ball", "a blue box"), "training captions, validation captions"),
        (captioned("a red ball", "a blue box", ids="bacdefgh"), "training captions"),
    ],
)
def test_a_run_goes_on_with_its_own_words_and_data_only(
    other: Dataset, what: str, recipe: Path, tmp_path: Path
) -> None:
    """Also where all sizes happen to agree."""
    plan = load_recipe(recipe, ["stages.0.epochs=1"])
    own = captioned("a red ball", "a blue box")
    train(plan, own, tmp_path / "run")
    with pytest.raises(UsageError, match=f"was started with different {what}\\."):
        train(plan, other, tmp_path / "run", resume=True)
    train(plan, own, tmp_path / "run", resume=True)


def test_a_run_goes_on_with_its_own_photos_and_encoder_only(recipe: Path, tmp_path: Path) -> None:
    """The cache was made anew for them, and the run went on: half of it had learnt from others."""
    plan = load_recipe(recipe, ["stages.0.epochs=1"])
    train(plan, captioned("a red ball"), tmp_path / "run")
    others = [
        replace(example, scene=load("shapes:200").examples[-1].scene) for example in captioned("a red ball").examples
    ]
    with pytest.raises(UsageError, match=r"was started with different photos\. Use those that it was started with, or"):
        train(plan, replace(captioned("a red ball"), examples=tuple(others)), tmp_path / "run", resume=True)
    weights = tmp_path / "encoder.safetensors"
    encoder = build_encoder(plan.encoder)
    save_file(encoder.state_dict(), weights)
    plan = load_recipe(recipe, ["stages.0.epochs=1", f"encoder.weights={weights}"])
    train(plan, captioned("a red ball"), tmp_path / "other")
    save_file({name: value + 1 for name, value in encoder.state_dict().items()}, weights)
    with pytest.raises(UsageError, match=r"was started with different encoder weights\."):
        train(plan, captioned("a red ball"), tmp_path / "other", resume=True)


def test_a_run_goes_on_in_another_version_and_tells_of_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_recipe(recipe, ["stages.0.epochs=1"])
    train(plan, captioned("a red ball"), tmp_path / "run")
    monkeypatch.setattr("showtell.training.run.__version__", "9.9")
    told = notes(plan, captioned("a red ball"), tmp_path / "run", resume=True)
    assert f"The run was started by showtell {showtell.__version__}; this is 9.9." in told


def test_it_says_when_it_stops_early_and_when_captions_are_all_alike(recipe: Path, tmp_path: Path) -> None:
    plan = load_recipe(recipe, ["stages.0.epochs=8", "stages.0.patience=1", "stages.0.learning_rate=1e-12"])
    told = notes(plan, captioned("a red ball", "a blue box"), tmp_path / "run")
    assert "Stopped after 2 of 8 epochs: no better CIDEr in 1." in told
    assert any(note.startswith("2 of 2 validation captions are '") or "CIDEr of the" in note for note in told), told


def test_a_start_learns_new_words_and_keeps_its_own(recipe: Path, tmp_path: Path) -> None:
    plan = load_recipe(recipe, ["stages.0.epochs=1"])
    train(plan, captioned("a red ball"), tmp_path / "start")
    further = load_recipe(recipe, ["stages.0.epochs=1", f"start_from={tmp_path / 'start'}"])
    told = notes(further, captioned("a red ball", "ein blauer ball"), tmp_path / "run")
    assert any(note.endswith("start knows 7 words, and learns 2 more.") for note in told), told
    before, after = (load_bundle(tmp_path / folder).tokenizer for folder in ("start", "run"))
    assert [after.word_of(n) for n in range(len(after))][: len(before)] == [
        before.word_of(n) for n in range(len(before))
    ]
    assert after.words("ein blauer") == [after.word_of(n) for n in after.encode("ein blauer")[1:-1]]
    few = further.model_copy(update={"tokenizer": TokenizerConfig(min_count=99)})
    told = notes(few, captioned("a red ball", "ein blauer ball"), tmp_path / "few")
    assert any("learns 0 more. 33.3% of the words in the training captions are too rare" in n for n in told), told


def test_new_words_begin_near_the_mean_of_the_known() -> None:
    """And whatever else differs in shape is left to be refused."""
    old = {"table": torch.randn(50, 8), "bias": torch.randn(50), "other": torch.randn(50, 3), "n": torch.tensor(1)}
    new = with_new_words(
        old, {"table": torch.zeros(60, 8), "bias": torch.zeros(60), "other": torch.zeros(50, 4), "n": old["n"]}, 50
    )
    assert torch.equal(new["table"][:50], old["table"])
    far = (new["table"][50:] - old["table"].mean(0)).norm(dim=1)
    assert 0 < far.max() < 0.3 * (old["table"] - old["table"].mean(0)).norm(dim=1).mean()
    assert new["bias"][50:] == pytest.approx(old["bias"].mean().item(), rel=1e-5)
    assert new["other"] is old["other"]


@pytest.mark.parametrize(("split", "kind"), [("train", "training"), ("dev", "validation")])
def test_no_readable_photo_is_the_reason_that_is_given(split: str, kind: str, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    whole = captioned("a red ball", "a blue box")
    examples = tuple(
        replace(example, scene=None, path=tmp_path / "broken.jpg") if example.split == split else example
        for example in whole.examples
    )
    with pytest.raises(DataError, match=f"None of the . {kind} images can be read"):
        train(load_recipe(recipe), replace(whole, examples=examples), tmp_path / "run")


def start(recipe: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "showtell",
        "train",
        str(recipe),
        "--data",
        SPEC,
        "--out",
        str(folder),
        *options,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_step(folder: Path, stage: int, step: int, process: subprocess.Popen[str]) -> None:
    """Until this step of this stage is saved."""
    deadline = time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < deadline
        progress = read_state(folder / "checkpoint")
        if progress is not None and (progress.stage, progress.step) >= (stage, step):
            return
        time.sleep(0.002)


LIVE_AND_AUGMENTED = ("encoder_stages=1", "augmentation={flip: 0.5, crop: 0.6, colour: 0.2, cutout: 0.2}")


@pytest.mark.parametrize(
    "settings",
    [(), tuple(f"--set=stages.{stage}.{setting}" for stage in range(3) for setting in LIVE_AND_AUGMENTED)],
    ids=["cached", "live"],
)
def test_killed_and_resumed_is_as_never_stopped(settings: tuple[str, ...], recipe: Path, tmp_path: Path) -> None:
    """kill -9 at moments of every stage; the weights of the best model and of the last step are equal, bit by bit."""
    recipe.write_text(TINY.replace("search:", f"{REWARDED}search:"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(recipe, whole, *settings)
    assert process.wait(200) == 0, process.communicate()[1]
    for stage, step in ((0, 2), (0, 11), (1, 2), (2, 2)):
        process = start(recipe, killed, "--resume", *settings)
        wait_for_step(killed, stage, step, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    saved = read_state(killed / "checkpoint")
    assert saved is not None
    assert saved.stage == 2, "the last one was to fall into the self-critical stage"
    process = start(recipe, killed, "--resume", *settings)
    assert process.wait(200) == 0, process.communicate()[1]
    for file in ("model/model.safetensors", "checkpoint/checkpoint.safetensors"):
        one, two = load_file(whole / file), load_file(killed / file)
        assert one.keys() == two.keys()
        assert [name for name in one if not np.array_equal(one[name], two[name])] == []
    assert (whole / "model/tokenizer.json").read_bytes() == (killed / "model/tokenizer.json").read_bytes()


def test_ctrl_c_saves_and_says_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    process = start(recipe, tmp_path / "run", "--set", "checkpoint_seconds=1000", "--set", "stages.0.epochs=1000")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "tensorboard").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run is saved. Add --resume to continue." in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoint" / "checkpoint.safetensors").exists()


def test_where_cider_says_nothing_other_scores_choose() -> None:
    """All references alike: CIDEr is 0 whatever is said."""
    assert rank_of({"CIDEr": 0.0, "BLEU-4": 0.4, "ROUGE_L": 0.8}) > rank_of(
        {"CIDEr": 0.0, "BLEU-4": 0.1, "ROUGE_L": 0.2}
    )
    assert rank_of({"CIDEr": 0.1, "BLEU-4": 0.1}) > rank_of({"CIDEr": 0.0, "BLEU-4": 0.9})
