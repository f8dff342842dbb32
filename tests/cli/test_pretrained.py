"""Captioners of `transformers` in every command: whatever takes a model takes them."""

import csv
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import showtell
from showtell import captioner as captioner_module
from showtell.bulk.cluster import _unpacked, model_files
from showtell.bundle import load_bundle
from showtell.cli import main
from tests.serve.serving import client, encoded
from tests.small_captioners import CAPTIONERS, write

WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "safetensors", "onnx"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
from showtell.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a captioner of each family, by name."""
    folder = tmp_path_factory.mktemp("models")
    for name in CAPTIONERS:
        write(name, folder / name, steps=20)
    write("vit_bert", folder / "other", steps=30)  # of the same words
    return folder


@pytest.fixture
def place(models, tmp_path, monkeypatch) -> Path:
    """A folder to work in, with photos of colours."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        colours = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(colours.repeat(16, 0).repeat(16, 1)).save(f"photos/{number}.png")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", CAPTIONERS)
def test_captions_as_json_lines(place, models, name, capsys):
    code, out, error = run(capsys, "caption", "photos", "-m", models / name, "-f", "jsonl", "--num", 2, "--beam", 4)
    assert (code, error) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == [f"photos/{n}.png" for n in (0, 0, 1, 1, 2, 2)]
    assert all(row["log_prob"] < 0 for row in rows)
    assert len({row["caption"] for row in rows}) > 1


@pytest.mark.parametrize("options", [["--beam", "1"], ["--groups", "2", "--num", "2"], ["--sample", "--num", "3"]])
def test_other_searches(place, models, options, capsys):
    code, out, _ = run(capsys, "caption", "photos/0.png", "-m", models / "vit_gpt2", "-f", "csv", *options)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == int(options[-1]) if "--num" in options else 1
    assert len({row["caption"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_words_that_are_wanted_and_not(place, models, name, capsys):
    """'giraffe' is three pieces, and 'cat' one or, in a table of bytes, more."""
    asked = ["--prefix", "a picture of", "--require", "giraffe", "--ban", "cat", "--beam", 8, "--max-words", 20]
    code, out, error = run(capsys, "caption", "photos/0.png", "-m", models / name, *asked)
    assert (code, error) == (0, "")
    said = out.split("\t")[1]
    assert said.startswith("a picture of")  # with no space behind, where the next piece goes on with the word
    assert "giraffe" in said
    assert "cat" not in said.split()


@pytest.mark.parametrize("name", ["blip", "git", "vit_bert"])
def test_where_it_looked(place, models, name, capsys):
    """At the patches, 4 x 4 of them, and never at the token before them."""
    code, _, error = run(capsys, "caption", "photos", "-m", models / name, "--explain", "why", "--prefix", "a red cat")
    assert (code, error) == (0, "")
    assert sorted(path.name for path in Path("why").iterdir()) == [
        "0001-0.png",
        "0002-1.png",
        "0003-2.png",
        "index.html",
    ]
    (caption,) = showtell.load(models / name)("photos/0.png", prefix="a red cat", num=1)
    assert caption.attention.shape == (len(caption.words), 4, 4)
    np.testing.assert_allclose(caption.attention.sum((1, 2)), 1, atol=1e-5)


def test_blip2_looks_at_no_place(place, models, capsys):
    code, _, error = run(capsys, "caption", "photos", "-m", models / "blip2", "--explain", "why")
    assert (code, error) == (0, "showtell: blip2 has no attention to show; why holds photos and captions.\n")
    assert [path.name for path in Path("why").iterdir()] == ["index.html"]


@pytest.mark.parametrize("name", ["blip2", "vit_bert"])
def test_evaluate_score_and_compare(place, models, name, capsys, small_meteor, monkeypatch):
    monkeypatch.setenv("SHOWTELL_CACHE", str(small_meteor))
    assert run(capsys, "evaluate", "--data", "shapes:20", "-m", models / name, "-o", "a.json")[0] == 0
    found = json.loads(Path("a.json").read_text())
    assert found["model"] == name
    assert len(found["predictions"]) == 2
    rows = [{"image_id": each["image_id"], "caption": each["caption"]} for each in found["predictions"]]
    Path("said.json").write_text(json.dumps(rows))
    Path("people.json").write_text(json.dumps({row["image_id"]: ["a red square", "a square"] for row in rows}))
    assert "CIDEr" in run(capsys, "score", "said.json", "people.json")[1]
    code, _, error = run(capsys, "compare", "said.json", "said.json", "people.json")
    assert code == 0, error


@pytest.mark.parametrize(("name", "grid"), [("blip", (4, 4)), ("blip2", None)])
def test_serve(models, name, grid):
    with client(showtell.load(models / name)) as browser:
        picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
        answer = browser.post(
            "/v1/captions", files={"image": encoded(picture)}, data={"attention": "true", "num": "2", "min_words": "1"}
        )
    assert answer.status_code == 200, answer.text
    captions = answer.json()["images"][0]["captions"]
    assert len(captions) == 2
    looked = captions[0]["attention"]
    assert looked is None if grid is None else np.shape(looked)[1:] == grid


def test_gallery_alt_and_metadata(place, models, capsys):
    code, out, _ = run(capsys, "gallery", "photos", "-m", models / "blip", "--out", "album.html")
    assert code == 0
    assert Path("album.html").read_text().count("photos/") >= 3
    Path("page.html").write_text('<img src="photos/0.png">')
    code, out, _ = run(capsys, "alt", "page.html", "-m", models / "blip")
    assert code == 0
    assert out.startswith("page.html:1\tphotos/0.png\t")
    code, _, error = run(capsys, "caption", "photos", "-m", models / "blip", "--min-confidence", "0.5")
    assert code == 2
    assert "blip has no calibrated confidence. Leave the option out, or fit it to 50 captioned photos: " in error


def test_models_together_and_their_mean(place, models, capsys):
    """Two that share their words; and the mean is a model of showtell's own."""
    pair = [models / "vit_bert", models / "other"]
    assert len(showtell.load(pair)(["photos/0.png", "photos/1.png"], num=1)) == 2
    code, _, error = run(capsys, "caption", "photos", "-m", pair[0], "-m", models / "vit_gpt2")
    assert code == 2
    assert "have different words (tokenizer.json), so they can't be an ensemble" in error
    assert run(capsys, "average", *pair, "--out", "mean", "--share", 1, "--share", 0)[0] == 0
    assert load_bundle("mean").converted is None
    assert run(capsys, "caption", "photos", "-m", "mean")[1] == run(capsys, "caption", "photos", "-m", pair[0])[1]


def test_a_cluster_gets_its_files(place, models):
    """A worker unpacks them, and reads the same model from them."""
    shutil.copytree(models / "git", "git")
    Path("git/pytorch_model.bin").write_bytes(b"the same weights, and as large")
    files = model_files([Path("git")])
    assert "pytorch_model.bin" not in files[0]
    (folder,) = _unpacked(files, place)
    captioner = showtell.load(folder, threads=1, engine="torch")
    shutil.rmtree(folder)  # as a worker does
    assert captioner("photos/0.png")[0].text == showtell.load(models / "git")("photos/0.png")[0].text


def test_what_it_is(place, models, capsys):
    code, out, _ = run(capsys, "models", models / "blip")
    assert code == 0
    assert "  image     32 x 32 pixels, 4 x 4 cells\n" in out
    assert "decoder   name pretrained, width 24, heads 3" in out
    assert max(map(len, out.splitlines())) < 500
    assert json.loads(run(capsys, "models", "--json", models / "blip")[1])["encoder"]["architecture"]["patch_size"] == 8


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["caption", "photos", "-m", "{}", "--engine", "onnx"],
            "is not exported, so only PyTorch can run it. Run 'showtell exp",
        ),
        (
            ["push", "{}", "hub:a/b"],
            "is a transformers model, and showtell pushes only its own models. Push it with 'hf",
        ),
        (
            ["calibrate", "{}", "--data", "shapes:20"],
            "whose config.json has no place for a confidence. Calibrate an ex",
        ),
        (
            ["features", "--data", "shapes:20", "-o", "f", "-e", "hf:a/b"],
            "is half of a captioner and can't be used alo",
        ),
        (
            ["export", "{}", "-o", "{}"],
            "holds files that are not part of a model (generation_config.json), and writing a model there would remove",
        ),
    ],
)
def test_what_it_can_not_do(place, models, command, message, capsys):
    """In a sentence; and its folder stays as it was."""
    before = {path.name: path.read_bytes() for path in (models / "git").iterdir()}
    code, out, error = run(capsys, *(part.format(models / "git") for part in command))
    assert (code, out) == (2, "")
    assert message in error.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in (models / "git").iterdir()} == before


@pytest.mark.parametrize("name", ["git", "vit_gpt2", "blip2"])  # a quarter of a minute each
def test_exported_it_says_the_same_without_pytorch(place, models, name, capsys):
    asked = ["--prefix", "a red", "--num", "2", "--require", "cat"]
    expected = run(capsys, "caption", "photos", "-m", models / name, *asked)[1]
    assert run(capsys, "export", models / name, "-o", "out")[0] == 0
    command = [sys.executable, "-c", WITHOUT, "caption", "photos", "-m", "out", "--engine", "onnx", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert (done.stdout, done.stderr) == (expected, "")
    again = showtell.load("out", engine="torch")  # the weights for PyTorch are in it, too
    assert again("photos/0.png", prefix="a red")[0].text == showtell.load("out")("photos/0.png", prefix="a red")[0].text


@pytest.mark.parametrize(
    ("name", "options"), [("blip", ["--weights", "int8"]), ("git", ["--int8", "--photos", "photos"])]
)
def test_exported_in_fewer_bits(place, models, name, options, capsys):
    code, out, error = run(capsys, "export", models / name, "-o", "out", *options)
    assert code == 0, error
    assert "int8" in out
    assert "## Exported" in Path("out/README.md").read_text()
    assert run(capsys, "caption", "photos", "-m", "out", "--engine", "onnx")[0] == 0


def test_weights_are_in_memory_once(models, monkeypatch):
    """What was read goes when the model has it."""
    read = []
    original = captioner_module.load_bundle

    def watched(where):
        bundle = original(where)
        read.extend(weakref.ref(array) for array in bundle.converted.values())
        return bundle

    monkeypatch.setattr(captioner_module, "load_bundle", watched)
    captioner = showtell.load(models / "blip")
    gc.collect()
    assert len(read) > 50
    assert not any(array() is not None for array in read)
    assert captioner.config.name == "blip"
