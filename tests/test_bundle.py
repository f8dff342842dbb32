"""A model folder: what is read is what was written, and what can't be read says so."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from showtell import bundle as bundle_module
from showtell.bundle import load_bundle, save_bundle
from showtell.errors import BundleError, MissingExtraError
from showtell.search.options import SearchOptions
from tests.fake_model import fake_config, fake_tokenizer, save_fake_model

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    return save_fake_model(tmp_path / "model")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_read_is_what_was_written(tmp_path):
    config = fake_config(
        search=SearchOptions(beam=5, banned_words=("red",), top_k=None),
        scores={"CIDEr": 0.5},
        training={"epochs": 3, "recipe": {"name": "größe"}},
    )
    weights = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([1, 2], np.float16),
        "scalar": np.array(7, np.int64),  # batch norm counts its batches in one: ascontiguousarray makes it [1]
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # safetensors writes the memory as it lies
    }
    save_bundle(tmp_path / "m", config, fake_tokenizer(), weights, "# a card")
    bundle = load_bundle(tmp_path / "m")
    assert bundle.config == config
    assert bundle.tokenizer.to_json() == fake_tokenizer().to_json()
    assert bundle.weights().keys() == weights.keys()
    for name, array in bundle.weights().items():
        assert array.shape == weights[name].shape, name
        assert array.dtype == weights[name].dtype, name
        np.testing.assert_array_equal(array, weights[name])
    assert (tmp_path / "m" / "README.md").read_text() == "# a card"
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "temporary folders stay behind"


def test_whoever_may_read_the_config_may_read_the_weights(folder):
    """A server runs as another user than the one who trained; safetensors writes for the owner only."""
    modes = {path.name: oct(path.stat().st_mode) for path in folder.iterdir() if path.name != "tokenizer.json"}
    assert set(modes.values()) == {modes["config.json"]}


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_files_that_a_windows_editor_has_saved(folder, codec):
    """Its mark at the begin is no part of the JSON."""
    before = load_bundle(folder)
    for name in ("config.json", "tokenizer.json"):
        path = folder / name
        path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(codec))
    assert load_bundle(folder).config == before.config
    assert load_bundle(folder).tokenizer.to_json() == before.tokenizer.to_json()


def test_a_run_folder_stands_for_the_model_in_it(tmp_path):
    save_fake_model(tmp_path / "run" / "model")
    assert load_bundle(str(tmp_path / "run")).path == tmp_path / "run" / "model"


def test_saving_again_replaces_the_model_whole(folder):
    """A file of the old model (an exported one) that stays beside new weights would caption with the old."""
    (folder / "decoder.onnx").write_bytes(b"old")
    save_bundle(folder, fake_config(name="second"), fake_tokenizer(), {"v": np.zeros(1)}, "")
    assert load_bundle(folder).config.name == "second"
    assert list(load_bundle(folder).weights()) == ["v"]
    assert not (folder / "decoder.onnx").exists()


def test_saving_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    with pytest.raises(BundleError, match=r"photos holds files that are not part of a model.*Choose a new folder"):
        save_fake_model(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").exists()
    with pytest.raises(BundleError, match=r"a\.jpg is a file, and writing a model there would remove it"):
        save_fake_model(tmp_path / "photos" / "a.jpg")


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_while_replacing(folder, renames):
    """Killed after any of the renames, a save leaves the old model or the new one, and the next one works."""
    code = f"""
import os, sys, pathlib
from tests.fake_model import *
done = 0
rename = os.replace
def replace(source, target):
    global done
    if os.path.isdir(source):
        if done == {renames}: os._exit(9)
        done += 1
    return rename(source, target)
os.replace = replace
import shutil
rmtree = shutil.rmtree
def remove(*arguments, **options):
    if done == 2: os._exit(9)
    return rmtree(*arguments, **options)
shutil.rmtree = remove
save_fake_model(pathlib.Path({str(folder)!r}), name="new")
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert load_bundle(folder).config.name == ("fake" if renames == 0 else "new")
    save_fake_model(folder, name="third")
    assert load_bundle(folder).config.name == "third"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_model(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_fake_model(folder, name="new", scores={"CIDEr": float("nan")})
    assert load_bundle(folder).config.name == "fake"


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match=r"There is no model folder .*nowhere\. Give the folder that"):
        load_bundle(tmp_path / "nowhere")


def test_not_a_model(tmp_path):
    with pytest.raises(BundleError, match=r"is not a model: it holds no config\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "\xff", '{"name": "\\ud800'])
def test_damaged_config(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"config\.json is not (JSON|UTF-8).*Copy the model folder again"):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format_version": "1"}'])
def test_config_of_something_else(folder, text):
    """Hugging Face's model folders hold a config.json, too."""
    (folder / "config.json").write_text(text)
    with pytest.raises(BundleError, match=r"config\.json is not the config of a showtell model"):
        load_bundle(folder)


def test_newer_format_is_refused_before_its_keys_are_read(folder):
    change_config(folder, format_version=2, new_key="?")
    with pytest.raises(
        BundleError, match=r"model format 2, but this version of showtell reads only up to 1\. Run: pip install --up"
    ):
        load_bundle(folder)


def test_unknown_and_wrong_keys_are_named(folder):
    change_config(folder, colour="red", grid=[7])
    with pytest.raises(BundleError, match=r"not a valid config .*grid.*colour: Extra inputs are not permitted"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("search", "message"), [({"beem": 3}, r"search\.beem: Unexpected"), ({"beam": 0}, r"search: beam is 0")]
)
def test_wrong_search_options_are_named(folder, search, message):
    change_config(folder, search=search)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_missing_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json can't be read"):
        load_bundle(folder)


def test_damaged_or_missing_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"model\.safetensors can't be read"):
        load_bundle(folder).weights()
    path.unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors can't be read"):
        load_bundle(folder).weights()


def test_without_safetensors(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[train\]'"):
        load_bundle(folder).weights()
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[train\]'"):
        save_fake_model(folder)


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"The model folder .*file/model can't be written"):
        save_fake_model(tmp_path / "file" / "model")


def test_reading_a_bundle_needs_no_torch(folder):
    code = f"import sys; from showtell.bundle import load_bundle; load_bundle({str(folder)!r}).weights()"
    code += "; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_module_names_every_file(folder):
    """The head of bundle.py is the format's documentation."""
    for path in folder.iterdir():
        assert path.name in (bundle_module.__doc__ or "")
