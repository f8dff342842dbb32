"""Export: what is written captions as PyTorch does, without PyTorch, and nothing is written that does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from PIL import Image

from showtell.bundle import load_bundle
from showtell.captioner import load
from showtell.engines.onnx import OnnxEngine
from showtell.errors import BundleError, MissingExtraError, UsageError
from showtell.export import graphs as export_module
from showtell.export.graphs import OPSET, Differences, export, with_columns
from tests.tiny_model import save_tiny_model

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    differences = export(load_bundle(trained), folder, np.full((1, 3, 64, 64), 0.5, np.float32))
    assert 0 < differences.largest < 1e-4
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, size=(48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_folder_is_a_model_without_pytorch_weights(trained, exported):
    names = {path.name for path in exported.iterdir()}
    graphs = {"encoder.onnx", "decoder_start.onnx", "decoder_step.onnx", "weights.bin"}
    assert names == {"config.json", "tokenizer.json", "README.md", "trainable.safetensors", *graphs}
    sizes = {path.name: path.stat().st_size for path in exported.iterdir()}
    assert sizes["trainable.safetensors"] < 0.3 * sizes["weights.bin"], "no large weight is stored twice"
    assert load_bundle(exported).config == load_bundle(trained).config
    assert (exported / "README.md").read_text() == "# tiny"


def test_it_captions_as_pytorch_does(trained, exported, photo):
    ours, theirs, reopened = load(exported, engine="onnx"), load(trained), load(exported, engine="torch")
    assert isinstance(ours.engine, OnnxEngine)
    assert not isinstance(theirs.engine, OnnxEngine)
    for options in ({}, {"beam": 1}, {"sample": True, "num": 4, "seed": 1}):
        expected = theirs(photo, **options)
        for found in (ours(photo, **options), reopened(photo, **options)):
            assert [each.text for each in found] == [each.text for each in expected]
            np.testing.assert_allclose([c.log_prob for c in found], [c.log_prob for c in expected], atol=1e-4)


def test_damaged_weights_for_pytorch_are_one_sentence(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    whole = (folder / "trainable.safetensors").read_bytes()
    for damaged in (
        whole[:100],
        whole.replace(b'"stored"', b'"strode"'),
        whole.replace(b'\\"offset\\": ', b'\\"offset\\":9'),
    ):
        assert damaged != whole
        (folder / "trainable.safetensors").write_bytes(damaged)
        with pytest.raises(BundleError, match=r"The weights .*trainable\.safetensors can't be read: .*Copy the model"):
            load_bundle(folder).weights()
    (folder / "trainable.safetensors").unlink()
    with pytest.raises(BundleError, match="is exported, and holds no weights for PyTorch"):
        load(folder, engine="torch")


def test_captioning_imports_no_torch(exported, photo):
    """The core install has none; and importing it takes seconds."""
    code = f"""
import sys
from showtell.cli import main
assert main(["caption", {str(photo)!r}, "--model", {str(exported)!r}]) == 0
heavy = {{"torch", "transformers", "onnx", "onnxscript", "safetensors"}} & set(sys.modules)
assert not heavy, heavy"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{photo}\t")


def test_no_weight_is_stored_twice(exported):
    """Show and Tell's LSTM is in both graphs of the decoder."""
    used: dict[str, set[str]] = {}
    for name in ("encoder.onnx", "decoder_start.onnx", "decoder_step.onnx"):
        for tensor in onnx.load(exported / name, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                assert place["location"] == "weights.bin"
                used.setdefault(f"{place['offset']} {place['length']}", set()).add(name)
    assert {"decoder_start.onnx", "decoder_step.onnx"} in used.values()
    blob = (exported / "weights.bin").read_bytes()
    contents = [blob[int(o) : int(o) + int(n)] for o, n in (place.split() for place in used)]
    assert len(set(contents)) == len(contents)


def test_graphs_say_what_their_axes_are(exported):
    step = onnx.load(exported / "decoder_step.onnx", load_external_data=False)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in step.graph.input
    }
    assert axes == {
        "memory.image": ["batch", 24],
        "state.h": ["batch", "rows", 1, 32],
        "state.c": ["batch", "rows", 1, 32],
        "tokens": ["batch", "hypotheses"],
        "parents": ["batch", "hypotheses"],
        "top": [],
    }
    assert [opset.version for opset in step.opset_import if opset.domain == ""] == [export_module.OPSET]


def test_what_differs_from_pytorch_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "graphs_of", lambda model: {})
    monkeypatch.setattr(export_module, "OnnxEngine", lambda folder: None)
    for log_probs in (0.5, float("nan")):
        monkeypatch.setattr(export_module, "compare", lambda *_, found=log_probs: Differences(0.0, found, 0.0))
        with pytest.raises(UsageError, match=r"differs from PyTorch by \S+, more than 0\.001; nothing is written"):
            export(load_bundle(trained), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_rounded_weights(trained, exported, tmp_path, photo, weights):
    """Smaller files, captions as likely, and a card that says what was done to the weights."""
    differences = export(load_bundle(trained), tmp_path / "out", weights=weights)
    assert differences.largest < 1e-4  # rounding is no part of what is held against PyTorch
    assert differences.log_probs < differences.rounding < 0.01
    sizes = [(folder / "weights.bin").stat().st_size for folder in (exported, tmp_path / "out")]
    assert sizes[1] < 0.6 * sizes[0]  # this small model has small kernels only, which stay in float16
    ours, theirs = load(tmp_path / "out")(photo), load(trained)(photo)
    np.testing.assert_allclose([c.log_prob for c in ours], [c.log_prob for c in theirs], atol=0.01)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# tiny\n\n## Exported\n")
    assert f"stored in {weights}, which moves log-probabilities by up to {differences.rounding:.2g}" in card


def test_no_folder_of_this_machine_is_in_the_files(exported):
    """The exporter notes the line of code behind each node, with its path."""
    home = str(Path(torch.__file__).parents[1]).encode()
    for file in exported.iterdir():
        assert home not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()


def test_int8_arithmetic(trained, exported, tmp_path):
    """Integer operations where the products are, a smaller file, and a card that says what that does to captions."""
    photos = np.random.default_rng(0).normal(size=(6, 3, 64, 64)).astype(np.float32)
    differences = export(load_bundle(trained), tmp_path / "out", calibration=photos)
    assert differences.largest < 1e-4  # the graphs are held against PyTorch before they are rounded
    assert differences.int8 is not None
    assert 0 < differences.int8 < 0.05
    operations = {
        name: {node.op_type for node in onnx.load(tmp_path / "out" / name, load_external_data=False).graph.node}
        for name in ("encoder.onnx", "decoder_start.onnx", "decoder_step.onnx")
    }
    assert "QLinearConv" in operations["encoder.onnx"]
    assert not {"Conv", "Clip"} & operations["encoder.onnx"]
    assert "MatMulInteger" in operations["decoder_step.onnx"]
    sizes = [(folder / "weights.bin").stat().st_size for folder in (exported, tmp_path / "out")]
    assert sizes[1] < 0.5 * sizes[0]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"in int8, which moves {differences.int8:.1%} of the next word's probability to other words." in card


def test_int8_that_would_say_something_else_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "MOST_MOVED", 0.0)
    photos = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with pytest.raises(UsageError, match=r"moves \d+% of the next word's .*nothing is written\. Export without"):
        export(load_bundle(trained), tmp_path / "out", calibration=photos)
    assert not (tmp_path / "out").exists()


def test_a_trained_model_is_not_replaced(trained):
    """`--out` with the model's own folder would remove the weights that it is made from."""
    with pytest.raises(UsageError, match=r"holds a trained model.*Choose a new folder"):
        export(load_bundle(trained), trained)


def test_an_exported_model_is_not_exported_again(exported, tmp_path):
    with pytest.raises(UsageError, match=r"is exported already\. Give the folder that 'showtell train' wrote"):
        export(load_bundle(exported), tmp_path / "out")


def test_without_onnxscript(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[train,export\]'"):
        export(load_bundle(trained), tmp_path / "out")


def test_what_onnx_can_not_say_is_named(tmp_path):
    class Unusual(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(UsageError, match=r"Unusual can't be exported: .*Caption with PyTorch"):
        export_module.onnx_model(Unusual(), {"x": torch.eye(3)}, (None,), ["y"])


def test_a_damaged_graph(exported, tmp_path):
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for damaged in ("decoder_step.onnx", "weights.bin"):
        (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:100])
        with pytest.raises(BundleError, match=r"The exported model .*onnx can't be read\. Export the model again"):
            load(tmp_path)


def test_a_product_with_a_vector_is_one_with_a_column():
    """Attention's scores, of any rank; the vector itself stays, and may have other uses."""
    rows, vector = (np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((2, 3, 4, 8), (8,)))
    nodes = [helper.make_node("MatMul", ["rows", "vector"], ["scores"]), helper.make_node("Neg", ["vector"], ["less"])]
    shapes = {"rows": (2, 3, 4, 8), "scores": (2, 3, 4), "less": (8,)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "graph", infos[:1], infos[1:], [numpy_helper.from_array(vector, "vector")])
    model = with_columns(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))
    checker.check_model(model, full_check=True)
    scores, less = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"rows": rows})
    np.testing.assert_allclose(scores, rows @ vector, atol=1e-5)
    np.testing.assert_array_equal(less, -vector)
