"""Captioners of `transformers`, fine-tuned: they learn eight photos by heart, resume bit by bit, and are rewarded."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import showtell
from showtell.bundle import load_bundle
from showtell.cli import main
from showtell.data import load
from showtell.data.dataset import Dataset
from showtell.engines.torch import model_of
from showtell.errors import MissingExtraError, UsageError
from showtell.export.graphs import export
from showtell.images.decode import normalise, resize
from showtell.models.captioning_model import CaptioningModel
from showtell.search.options import SearchOptions
from showtell.tokenizer import TokenizerConfig
from showtell.training import own
from showtell.training.adapters import adapted, merged
from showtell.training.checkpoint import read_state
from showtell.training.events import Epoch, Event
from showtell.training.inputs.augmentation import mirror_image, mirrored
from showtell.training.inputs.features import cached_features
from showtell.training.own import plan_for
from showtell.training.recipe import Recipe, parse_recipe
from showtell.training.run import words_note
from showtell.training.stages.cross_entropy import CrossEntropy
from showtell.training.stages.stage import parameter_groups
from showtell.training.trainer import train
from tests.small_captioners import write

pytest.importorskip("peft")


def random_captioner(kind: str, folder: Path) -> Path:
    """One of random weights that are large enough to tell photos apart, which those of a fresh model are not."""
    model = write(kind, folder, steps=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_captioner("blip", tmp_path_factory.mktemp("blip"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


def by_heart(count: int = 8) -> Dataset:
    """Drawn scenes that are both learnt from and validated on, with a caption each."""
    scenes = [replace(example, captions=example.captions[:1]) for example in load(f"shapes:{count}").examples]
    dev = [replace(example, image_id=f"{example.image_id} again", split="dev") for example in scenes]
    return Dataset("scenes", (*(replace(example, split="train") for example in scenes), *dev))


def shown(dataset: Dataset, times: int) -> Dataset:
    """Each training image so often in a pass: fewer validations."""
    return replace(
        dataset, examples=tuple(replace(e, times=times * (e.split == "train") or 1) for e in dataset.examples)
    )


def recipe_of(start: Path, *stages: dict[str, Any], **keys: Any) -> Recipe:
    """Nothing is dropped, and rates are high."""
    usual = {"kind": "cross_entropy", "batch_images": 8, "learning_rate": 3e-3, "label_smoothing": 0.0}
    rewarded = {"batch_images": 8, "learning_rate": 1e-3, "max_words": 14}
    filled = [(rewarded if stage.get("kind") == "self_critical" else usual) | stage for stage in stages]
    keys = {"search": {"beam": 2, "max_words": 30}, "decoder": {"dropout": 0.0}} | keys
    return parse_recipe({"name": "tuned", "start_from": str(start), "stages": filled, **keys}, "the test")


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def said_of(model: Path, dataset: Dataset) -> list[str]:
    captioner = showtell.load(model)
    return [captioner(example.read())[0].text for example in dataset.split("dev")]


def captions_of(dataset: Dataset) -> list[str]:
    return [example.captions[0] for example in dataset.split("dev")]


@pytest.fixture(scope="module")
def tuned(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt eight photos by heart, all of the decoder on cached features."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOWTELL_CACHE", str(folder / "cache"))
        train(recipe_of(start, {"epochs": 16}), shown(by_heart(), 25), folder / "run")
    return folder / "run"


# ------------------------------------------------------------------ by heart


def test_a_small_blip_learns_eight_photos_by_heart_and_is_exported(tuned: Path, tmp_path: Path) -> None:
    assert said_of(tuned, by_heart()) == captions_of(by_heart())
    export(load_bundle(tuned), tmp_path / "exported")
    assert said_of(tmp_path / "exported", by_heart()) == captions_of(by_heart())


def other_captions() -> Dataset:
    """The same photos, each with the next one's caption."""
    dataset = by_heart()
    texts = [example.captions for example in dataset.examples][:8]
    others = (replace(example, captions=texts[(n + 1) % 8]) for n, example in enumerate(dataset.examples))
    return replace(dataset, examples=tuple(others))


def test_adapters_learn_other_captions_by_heart(tuned: Path, tmp_path: Path) -> None:
    """What is saved has the start's names, and its very weights but for the layers' products."""
    stage = {"epochs": 10, "lora": 16, "learning_rate": 4e-3}
    train(recipe_of(tuned, stage), shown(other_captions(), 25), tmp_path / "run")
    assert said_of(tmp_path / "run", other_captions()) == captions_of(other_captions())
    before, after = load_bundle(tuned).weights(), load_bundle(tmp_path / "run").weights()
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    products = ("query_key_value", "words_output", "image_query", "image_key_value", "image_output")
    parts = {*products, "feed_forward.0", "feed_forward.3"}
    assert changed == {f"decoder.layers.{layer}.{part}.weight" for layer in range(3) for part in parts}


def test_the_last_layers_learn_alone(tuned: Path, tmp_path: Path) -> None:
    train(recipe_of(tuned, {"epochs": 1, "decoder_layers": 2}), shown(other_captions(), 5), tmp_path / "run")
    before, after = load_bundle(tuned).weights(), load_bundle(tmp_path / "run").weights()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    layers = ("decoder.layers.1.", "decoder.layers.2.")
    assert changed == {name for name in before if name.startswith(layers)}


@pytest.mark.slow
def test_a_small_git_learns_eight_photos_by_heart(tmp_path: Path) -> None:
    """Its cells stand before the words, so gradients go through them; the encoder's last layer learns, too."""
    folder = random_captioner("git", tmp_path / "git")
    stage = {"epochs": 12, "encoder_stages": 1, "encoder_learning_rate": 1e-3}
    train(recipe_of(folder, stage), shown(by_heart(), 25), tmp_path / "run")
    assert said_of(tmp_path / "run", by_heart()) == captions_of(by_heart())
    before, after = load_bundle(folder).weights(), load_bundle(tmp_path / "run").weights()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    of_encoder = {name for name in changed if name.startswith("encoder.")}
    assert of_encoder
    assert all(".layers.1." in name for name in of_encoder)


# ------------------------------------------------------------------ what learns


def test_adapters_change_nothing_at_first_and_are_merged(start: Path) -> None:
    torch.manual_seed(0)
    model = model_of(load_bundle(start)).eval()
    tuned = adapted(model, 4, None).eval()
    grid, tokens = torch.randn(2, model.encoder.cells, model.encoder.width), torch.randint(4, 90, (2, 3, 6))

    def logits(model: CaptioningModel) -> torch.Tensor:
        return model.decoder(model.decoder.memory(grid), tokens)

    torch.testing.assert_close(logits(tuned), logits(model))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = merged(tuned)
    assert list(plain.state_dict()) == list(model.state_dict())
    assert (logits(tuned) - logits(model)).abs().max() > 0.1
    torch.testing.assert_close(logits(plain), logits(tuned), atol=1e-4, rtol=1e-4)


def test_what_is_frozen_is_in_no_group_of_the_optimiser(start: Path) -> None:
    model = model_of(load_bundle(start))
    size = len(load_bundle(start).tokenizer)

    def learning(model: CaptioningModel, **keys: Any) -> set[str]:
        groups = parameter_groups(model, CrossEntropy(**keys), size)
        found = {id(parameter) for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
        return {name for name, parameter in model.named_parameters() if id(parameter) in found}

    decoder = {name for name, _ in model.named_parameters() if name.startswith("decoder.")}
    last = {name for name in decoder if name.startswith("decoder.layers.2.")}
    assert learning(model) == decoder
    assert learning(model, decoder_layers=1) == last
    assert learning(model) == decoder, "what was frozen learns again"
    of_adapters = learning(adapted(model, 2, 1), lora=2, decoder_layers=1)
    assert of_adapters
    assert all(name.startswith("decoder.layers.2.") and "lora_" in name for name in of_adapters)
    with pytest.raises(UsageError, match="The decoder has 3 layers, so the last 4 of them can't be trained"):
        parameter_groups(model, CrossEntropy(decoder_layers=4), size)


@pytest.mark.parametrize("key", ["lora", "decoder_layers"])
def test_a_decoder_without_layers_has_none_that_learn(key: str) -> None:
    recipe = {"name": "x", "encoder": {"name": "efficientnet_lite0"}, "decoder": {"name": "show_attend_and_tell"}}
    with pytest.raises(
        UsageError, match=f"stages.0.{key}: show_attend_and_tell has no Transformer layers; leave it out"
    ):
        parse_recipe({**recipe, "stages": [{"kind": "cross_entropy", key: 1}]}, "r")
    stage = {"kind": "cross_entropy", key: 1, "words_learning_rate": 1e-3}
    with pytest.raises(UsageError, match=f"with {key} the tables of words do not learn"):
        parse_recipe({**recipe, "decoder": {"name": "transformer"}, "stages": [stage]}, "r")


def test_it_is_said_before_training_that_peft_is_missing(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"showtell\[lora\]"):
        train(recipe_of(start, {"lora": 4}), by_heart(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ the run


class Killed(Exception):
    """As if the process were gone."""


STAGES = (
    {"epochs": 2, "lora": 4, "average": 0.9, "best_epochs": 2, "batch_images": 3, "augmentation": {"flip": 0.5}},
    {"epochs": 1, "decoder_layers": 1, "batch_images": 3, "accumulate": 2},
    {"kind": "self_critical", "epochs": 1, "lora": 2, "encoder_stages": 1, "batch_images": 3, "average": 0.9},
)


def test_killed_and_resumed_is_as_never_stopped(tuned: Path, tmp_path: Path) -> None:
    """After every third thing that it tells, so in every stage and between them; the weights are equal, bit by bit."""
    recipe = recipe_of(tuned, *STAGES, checkpoint_seconds=0, decoder={"dropout": 0.1})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(recipe, by_heart(), whole)
    deaths = 0
    while read_state(killed / "checkpoint") is None or not (killed / "report.html").exists():
        told: list[Event] = []

        def tell(event: Event, told: list[Event] = told) -> None:
            told.append(event)
            if sum(isinstance(event, Epoch) for event in told) == 3:
                raise Killed

        try:
            train(recipe, by_heart(), killed, resume=True, tell=tell)
        except Killed:
            deaths += 1
    assert deaths >= 5
    for file in ("model/model.safetensors", "checkpoint/checkpoint.safetensors"):
        one, two = load_file(whole / file), load_file(killed / file)
        assert one.keys() == two.keys()
        assert [name for name in one if not np.array_equal(one[name], two[name])] == []
    log = log_of(whole)
    assert [line["stage"] for line in log] == [0, 0, 0, 1, 2]
    assert log[2]["mean_of"] == [1, 2]
    names = {name.partition("/")[2] for name in load_file(whole / "checkpoint/checkpoint.safetensors")}
    assert any("lora_A" in name for name in names)
    assert load_file(whole / "model/model.safetensors").keys() == load_bundle(tuned).weights().keys()


def test_samples_are_rewarded(tuned: Path, tmp_path: Path) -> None:
    """The photos have other captions now; the reward of what is said of them rises."""
    stage = {"kind": "self_critical", "epochs": 8, "lora": 8, "learning_rate": 4e-3, "samples": 5}
    train(recipe_of(tuned, stage), shown(other_captions(), 5), tmp_path / "run")
    rewards = [line["reward"] for line in log_of(tmp_path / "run")]
    assert rewards[-1] > 2 * rewards[0] > 0, rewards


@pytest.mark.parametrize("settings", [{"lora": 4}, {"decoder_layers": 1}, {"encoder_stages": 1}])
def test_products_may_be_in_bfloat16(settings: dict[str, Any], tuned: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tuned, {"epochs": 1, "label_smoothing": 0.1, **settings}, precision="bf16")
    train(recipe, by_heart(), tmp_path / "run")
    assert 0 < log_of(tmp_path / "run")[0]["loss"] < 3
    assert {weight.dtype for weight in load_bundle(tmp_path / "run").weights().values()} == {np.dtype("float32")}


def test_cached_are_all_cells_of_photos_and_of_their_mirror_images(start: Path, tmp_path: Path) -> None:
    encoder = model_of(load_bundle(start)).encoder.eval()
    examples = by_heart().split("train")[:2]
    mirrors = [mirror_image(example) for example in examples]
    cache = cached_features("scenes", [*examples, *mirrors], encoder, tmp_path / "features")
    squares = np.stack([resize(example.read(), encoder.preprocessing) for example in (*examples, *mirrors)])
    with torch.no_grad():
        expected = encoder(torch.from_numpy(normalise(squares, encoder.preprocessing))).numpy()
    assert expected.shape == (4, 17, 32)  # a class token and 4 x 4 patches
    rows = cache.rows([example.image_id for example in (*examples, *mirrors)])
    np.testing.assert_allclose(rows, expected, atol=4e-3)
    assert np.abs(expected[0] - expected[2]).max() > 0.1


# ------------------------------------------------------------------ words


def test_pieces_spell_all_words_and_what_they_can_not_is_said(start: Path) -> None:
    tokenizer = load_bundle(start).tokenizer
    captions = ["The giraffes at the LEFT", "一面红色的砖墙"]
    assert tokenizer.grown(captions, TokenizerConfig()) is tokenizer
    assert tokenizer.decode(tokenizer.encode(captions[0])) == "the giraffes at the left"
    assert tokenizer.decode(tokenizer.encode(mirrored(captions[0]))) == "the giraffes at the right"
    ids = [tokenizer.encode_batch([caption]) for caption in captions]
    note = words_note(ids[:1], tokenizer, len(tokenizer), "start")
    assert note == f"start spells words with its {len(tokenizer)} pieces, and learns no new ones."
    assert "% of the training captions, and leaves them out" in words_note(ids, tokenizer, 5, "start")


def test_captions_of_mirrored_photos_name_the_other_side(tuned: Path, tmp_path: Path) -> None:
    """Learnt by heart, always mirrored: the photos as they are have the captions of the other side."""
    scenes = replace(
        by_heart(), examples=tuple(replace(e, captions=("a ball at the left",)) for e in by_heart().examples)
    )
    stage = {"epochs": 1, "augmentation": {"flip": 1.0}}
    train(recipe_of(tuned, stage), shown(scenes, 60), tmp_path / "run")
    assert said_of(tmp_path / "run", scenes)[0] == "a ball at the right"


# ------------------------------------------------------------------ the plan


def test_the_plan_for_a_captioner_of_transformers(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(by_heart(), str(start), "own")
    (stage,) = plan.recipe.stages
    assert (stage.lora, stage.learning_rate, stage.words_learning_rate) == (own.RANK, 1e-4, None)
    assert stage.encoder_stages == 0
    assert plan.recipe.decoder.name == "pretrained"
    assert plan.recipe.search.like_generate
    assert "passes with LoRA" in plan.said
    monkeypatch.setattr(own, "find_spec", lambda name: None)
    plan = plan_for(by_heart(), str(start), "own")
    (stage,) = plan.recipe.stages
    assert (stage.lora, stage.decoder_layers, stage.learning_rate) == (0, 3, 3e-5)
    assert "in its last layers" in plan.said


@pytest.mark.parametrize(("letters", "search", "training"), [(4, 30, 39), (34, 34, 39), (45, 39, 39)])
def test_the_plan_counts_pieces_and_the_decoder_has_positions_for_them(
    letters: int, search: int, training: int, start: Path
) -> None:
    """A word that is spelled letter by letter."""
    long = tuple(replace(example, captions=("z" * letters,)) for example in by_heart().examples)
    recipe = plan_for(replace(by_heart(), examples=long), str(start), "own").recipe
    assert (recipe.search.max_words, recipe.max_words) == (search, training)


def test_one_command(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "shapes:12", "--from", str(start), "--set", "stages.0.epochs=1", "--set", "seed=1"]
    assert main(command) == 0
    assert "pieces, and learns no new ones" in capsys.readouterr().err
    assert load_bundle("runs/shapes").config.decoder["name"] == "pretrained"


def test_a_recipe_leaves_out_what_its_start_has(start: Path) -> None:
    stages = [{"kind": "cross_entropy"}]
    config = load_bundle(start).config
    recipe = parse_recipe({"name": "x", "start_from": str(start), "stages": stages}, "r")
    assert recipe.encoder.model_dump(mode="json") == config.encoder
    assert recipe.decoder.model_dump(mode="json") == config.decoder
    assert recipe.search == config.search
    parts = {"decoder": {"dropout": 0.3}, "search": {"beam": 2}}
    recipe = parse_recipe({"name": "x", "start_from": str(start), "stages": stages, **parts}, "r")
    assert recipe.decoder.model_dump(mode="json") == {**config.decoder, "dropout": 0.3}
    assert recipe.search == SearchOptions(beam=2)
    with pytest.raises(UsageError, match="'encoder': field required"):
        parse_recipe({"name": "x", "stages": stages}, "r")
