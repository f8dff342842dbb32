"""`showtell models`: what a model folder holds."""

import json

from showtell.cli import main
from tests.fake_model import save_fake_model


def test_details(tmp_path, capsys):
    folder = save_fake_model(tmp_path / "m", scores={"CIDEr": 0.512}, training={"epochs": 3, "notes": None})
    assert main(["models", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"fake  ({folder})\n")
    for line in (
        "encoder   kind fake",
        "image     8 x 8 pixels, 2 x 2 cells",
        "words     11",
        "search    beam 3, length penalty 0.7, up to 8 words",
        "scores    CIDEr 51.2",
        "training  epochs 3\n",
    ):
        assert line in out
    for file in ("README.md", "config.json", "model.safetensors", "tokenizer.json"):
        assert f"{file} 0.00 MB" in out


def test_json_is_the_config(tmp_path, capsys):
    folders = [save_fake_model(tmp_path / name, name=name) for name in ("one", "two")]
    assert main(["models", "--json", *map(str, folders)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [json.loads((folder / "config.json").read_text()) for folder in folders]


def test_no_model(tmp_path, capsys):
    assert main(["models", str(tmp_path)]) == 1
    assert "is not a model: it holds no config.json" in capsys.readouterr().err
