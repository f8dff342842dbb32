"""`showtell export`: what it prints, and what it says when it can't."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from showtell.bundle import save_bundle
from showtell.cli import main
from showtell.cli.commands import export as export_command
from showtell.export import graphs as export_module
from showtell.export.graphs import Differences
from tests.fake_model import fake_config, fake_tokenizer, picture, save_fake_model


@pytest.fixture
def given(monkeypatch) -> list:
    """What the command hands to `showtell.export.graphs`, which writes a model of 12 bytes."""
    given = []

    def export(bundle, out, images=None, weights="float32", calibration=None):
        given.extend([bundle.config.name, images, weights, calibration])
        save_bundle(out, fake_config(), fake_tokenizer(), {}, "", {"encoder.onnx": b"x" * 12})
        moved = None if calibration is None else 0.074
        return Differences(grid=2e-6, log_probs=1.5e-5, attention=0.0, rounding=0.031, int8=moved)

    monkeypatch.setattr(export_module, "export", export)
    return given


def test_prints_the_differences_and_the_size(tmp_path, capsys, given):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "largest differences from PyTorch, on random images: "
        "log-probabilities 1.5e-05, attention 0.0e+00, features 2.0e-06 of the largest\n"
    )
    assert out.endswith(f"{tmp_path / 'out'}: 0.0 MB\n")
    assert "rounded" not in out
    assert given == ["fake", None, "float32", None]


def test_prints_what_rounding_changes(tmp_path, capsys, given):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), "--weights", "int8"]) == 0
    assert "\nweights rounded to int8: log-probabilities differ by up to 3.1e-02\n" in capsys.readouterr().out
    assert given == ["fake", None, "int8", None]


def test_refuses_other_weights(tmp_path, capsys, given):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), "--weights", "int4"]) == 2
    assert "'float32', 'float16', 'int8'" in capsys.readouterr().err


@pytest.fixture
def table(tmp_path, monkeypatch) -> str:
    """A data set of 20 red photos in its test split, and 70 green and blue ones in turn to train on."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(90):
        colour = "red" if number < 20 else ("lime", "blue")[number % 2]
        picture(colour).save(f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": colour, "split": "test" if number < 20 else "train"})
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "table:t.jsonl"


def test_compares_on_photos_of_a_data_set(tmp_path, capsys, given, table):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", "out", "--data", table, "--split", "test"]) == 0
    out = capsys.readouterr().out
    assert "on random images and 16 photos: " in out
    assert "int8" not in out
    assert "CIDEr" not in out
    assert given[1].shape == (16, 3, 8, 8)
    assert given[1].dtype == np.float32
    assert given[3] is None


class SaysOneThing:
    """A captioner that says the same of every image."""

    def __init__(self, text: str) -> None:
        self.text, self.config = text, fake_config()

    def stream(self, images, num):
        for _ in images:
            yield [SimpleNamespace(text=self.text)]


def test_int8_is_measured_on_train_photos_and_scored_on_the_split(tmp_path, capsys, given, table, monkeypatch):
    """Scales that were measured on the photos that captions are scored on would flatter the score."""
    folder = save_fake_model(tmp_path / "m")
    texts = {str(folder): "red", "out": "lime"}
    monkeypatch.setattr(export_command, "load", lambda where: SaysOneThing(texts[str(where)]))
    assert main(["export", str(folder), "--out", "out", "--data", table, "--split", "test", "--int8"]) == 0
    out = capsys.readouterr().out
    assert "\nint8 arithmetic: 7.4% of the next word's probability goes to other words, " in out
    assert "log-probabilities differ by up to 3.1e-02\n" in out
    assert re.search(r"\nCIDEr on 20 test photos: \S+ in float32, 0\.0 in int8 \(\S+\); 20 captions differ\n", out)
    calibration = given[3]
    assert calibration.shape == (64, 3, 8, 8)
    assert (calibration[:, 0] == 0).all()  # none of the red ones
    assert len(np.unique(calibration.mean(axis=(2, 3)), axis=0)) == 2


def test_int8_with_a_folder_of_photos(tmp_path, capsys, given):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        picture("red").save(photos / f"{number}.png")
    command = ["export", str(save_fake_model(tmp_path / "m")), "--out", str(tmp_path / "out"), "--int8"]
    assert main([*command, "--photos", str(photos)]) == 0
    assert "CIDEr" not in capsys.readouterr().out
    assert given[3].shape == (3, 3, 8, 8)


def test_int8_without_photos(tmp_path, capsys, given):
    command = ["export", str(save_fake_model(tmp_path / "m")), "--out", str(tmp_path / "out")]
    assert main([*command, "--int8"]) == 2
    message = capsys.readouterr().err
    assert "--int8 needs photos to measure the encoder's arrays on. Give --data SPEC" in " ".join(message.split())
    assert main([*command, "--int8", "--photos", str(tmp_path / "m")]) == 2
    assert "holds no image" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--photos", str(tmp_path)]) == 2
    assert "--photos is for --int8 only. Add --int8, or leave --photos out." in capsys.readouterr().err
    assert given == []


def test_int8_without_a_train_split(tmp_path, capsys, given, table):
    """Its dev or test photos are not taken instead without a word."""
    lines = Path("t.jsonl").read_text().splitlines(keepends=True)
    Path("t.jsonl").write_text("".join(line for line in lines if "train" not in line))
    command = ["export", str(save_fake_model(tmp_path / "m")), "--out", "out", "--split", "test", "--int8"]
    assert main([*command, "--data", table]) == 1
    assert "train" in capsys.readouterr().err
    assert given == []


def test_no_model(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "There is no model folder" in capsys.readouterr().err


def test_without_pytorch(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "showtell.export.graphs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", str(save_fake_model(tmp_path / "m")), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'showtell[train,export]'" in capsys.readouterr().err
