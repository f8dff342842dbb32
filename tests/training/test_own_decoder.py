"""A decoder that stands outside the package is trained by a recipe that names it, and captions where it is trusted."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import showtell
from showtell.cli import main
from showtell.data import load
from showtell.errors import UsageError
from showtell.training.recipe import load_recipe
from showtell.training.trainer import train

MODULE = '''
import torch
from pydantic import Field
from torch import nn

from showtell.models.decoder import Decoder, DecoderConfig, Forced


class BagConfig(DecoderConfig):
    width: int = Field(8, gt=0, description="of words and of the image")


class Bag(Decoder):
    """The mean of the words so far, and the image."""

    config: BagConfig

    def __init__(self, config, feature_width, vocabulary):
        super().__init__()
        self.config = config
        self.image = nn.Linear(feature_width, config.width)
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.output = nn.Linear(config.width, vocabulary)

    def memory(self, grid):
        return {"image": self.image(grid.mean(1))}

    def start(self, memory):
        nothing = torch.zeros_like(memory["image"])[:, None]
        return {"sum": nothing, "count": nothing[..., :1]}

    def step(self, memory, state, tokens):
        total, count = state["sum"] + self.embedding(tokens), state["count"] + 1
        return self.output(memory["image"][:, None] + total / count), None, {"sum": total, "count": count}

    def forced(self, memory, tokens, packing):
        counts = torch.arange(1, tokens.shape[2] + 1)[:, None]
        means = self.embedding(tokens).cumsum(2) / counts
        return Forced(self.output(memory["image"][:, None] + packing.pack(means)))
'''
RECIPE = """
name: own
encoder: {name: efficientnet_lite0, weights: random, size: 64}
tokenizer: {min_count: 1}
decoder: {name: "MODULE:Bag", width: 12}
stages: [{kind: cross_entropy, epochs: 1, batch_images: 4}]
search: {beam: 2, max_words: 8}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The decoder's module, in a folder that is searched for modules; each test has one of its own name."""
    name = f"decoder_of_{tmp_path.name}"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return name


def recipe_of(folder: Path, module: str, *settings: str):
    (folder / "own.yaml").write_text(RECIPE.replace("MODULE", module))
    return load_recipe(folder / "own.yaml", settings)


def test_it_is_trained_by_its_name_and_captions(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path, module)
    photos = load("shapes:12")
    train(recipe, photos, tmp_path / "run")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    photo = photos.examples[0].read()
    caption = showtell.load(tmp_path / "run")(photo)[0]
    assert caption.words
    assert caption.attention is None
    Image.fromarray(photo).save(tmp_path / "photo.png")
    command = ["caption", str(tmp_path / "photo.png"), "--model", str(tmp_path / "run")]

    # Elsewhere, its module has not been imported. A model that came from anywhere must not have it imported.
    code = "import sys; from showtell.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {"PYTHONPATH": f"{Path(showtell.__file__).parents[1]}:{tmp_path / 'modules'}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    refused = run(*command)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"showtell: This model's decoder is {module}:Bag, and")
    trusted = run("--decoder-module", module, *command)
    assert (trusted.returncode, trusted.stdout.split("\t")[-1].strip()) == (0, caption.text)


def test_a_wrong_setting_is_named(tmp_path: Path, module: str) -> None:
    with pytest.raises(UsageError, match=r"'decoder': width: Input should be greater than 0"):
        recipe_of(tmp_path, module, "decoder.width=0")
    with pytest.raises(UsageError, match=r"'decoder': wide: Extra inputs are not permitted"):
        recipe_of(tmp_path, module, "decoder.wide=3")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:Bag", "can't be imported: No module named 'no_such_module'"),
        (":Bag", "can't be imported: Empty module name"),
        ("MODULE:BagConfig", "is not a decoder"),
        ("MODULE:Sack", "is not a decoder"),
        ("os:system", "is not a decoder"),
    ],
)
def test_what_is_no_decoder_is_refused(tmp_path: Path, module: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        recipe_of(tmp_path, module, f"decoder.name={name.replace('MODULE', module)}")


def test_the_command_line_says_that_there_is_no_such_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--decoder-module", "no_such_module", "models"]) == 2
    assert "--decoder-module no_such_module can't be imported" in capsys.readouterr().err
