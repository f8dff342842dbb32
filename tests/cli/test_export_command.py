"""`showtell export`: what it prints, and what it says when it can't."""

import json
import sys

import numpy as np
import pytest

from showtell import export as export_module
from showtell.bundle import save_bundle
from showtell.cli import main
from showtell.export import Differences
from tests.fake_model import fake_config, fake_tokenizer, picture, save_fake_model


@pytest.fixture
def given(monkeypatch) -> list:
    """What the command hands to `showtell.export`, which writes a model of 12 bytes."""
    given = []

    def export(bundle, out, images=None, weights="float32"):
        given.extend([bundle.config.name, images, weights])
        save_bundle(out, fake_config(), fake_tokenizer(), {}, "", {"encoder.onnx": b"x" * 12})
        return Differences(grid=2e-6, log_probs=1.5e-5, attention=0.0, rounding=0.031)

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
    assert given == ["fake", None, "float32"]


def test_prints_what_rounding_changes(tmp_path, capsys, given):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), "--weights", "int8"]) == 0
    assert "\nweights rounded to int8: log-probabilities differ by up to 3.1e-02\n" in capsys.readouterr().out
    assert given == ["fake", None, "int8"]


def test_refuses_other_weights(tmp_path, capsys, given):
    folder = save_fake_model(tmp_path / "m")
    assert main(["export", str(folder), "--out", str(tmp_path / "out"), "--weights", "int4"]) == 2
    assert "'float32', 'float16', 'int8'" in capsys.readouterr().err


def test_compares_on_photos_of_a_data_set(tmp_path, capsys, given, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save_fake_model(tmp_path / "m")
    rows = []
    for number in range(20):
        picture("red").save(f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": "red", "split": "test"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["export", str(folder), "--out", "out", "--data", "table:t.jsonl", "--split", "test"]
    assert main(command) == 0
    assert "on random images and 16 photos: " in capsys.readouterr().out
    assert given[1].shape == (16, 3, 8, 8)
    assert given[1].dtype == np.float32


def test_no_model(tmp_path, capsys):
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "There is no model folder" in capsys.readouterr().err


def test_without_pytorch(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "showtell.export", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", str(save_fake_model(tmp_path / "m")), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'showtell[train,export]'" in capsys.readouterr().err
