"""Stored weights: rounded on disk only, none stored twice, and the graph after loading is that of float32 weights."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from showtell.engines.onnx import _session
from showtell.errors import UsageError
from showtell.export.weights import files_of, output_axes, to_int8

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "table": RANDOM.normal(size=(90, 48)),
    "output": None,  # the table, transposed
    "matrix": RANDOM.normal(size=(48, 48)) * np.geomspace(0.01, 10, 48),  # columns far apart: one scale won't do
    "bias": RANDOM.normal(size=400),
    "kernel": RANDOM.normal(size=(32, 4, 3, 3)),
    "depthwise": RANDOM.normal(size=(32, 1, 3, 3)) * np.geomspace(0.01, 10, 32)[:, None, None, None],
    "tiny": RANDOM.normal(size=(4, 4)),
}
WEIGHTS["output"] = WEIGHTS["table"].T.copy()
SIZES = {"float32": 4, "float16": 2, "int8": 1}


def graph(weights=WEIGHTS) -> onnx.ModelProto:
    """Looks words up, multiplies, and gives logits by the same table; beside it two convolutions of an image."""
    node = helper.make_node
    return helper.make_model(
        helper.make_graph(
            [
                node("Gather", ["table", "tokens"], ["words"]),
                node("MatMul", ["words", "matrix"], ["hidden"]),
                node("MatMul", ["hidden", "output"], ["logits"]),
                node("Conv", ["image", "kernel"], ["wide"]),
                node("Conv", ["wide", "depthwise"], ["cells"], group=32),
                node("Add", ["small", "bias"], ["sums"]),
                node("MatMul", ["four", "tiny"], ["fours"]),
            ],
            "test",
            [
                helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n"]),
                helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 8, 8]),
                helper.make_tensor_value_info("small", TensorProto.FLOAT, [1]),
                helper.make_tensor_value_info("four", TensorProto.FLOAT, [1, 4]),
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                for name in ("logits", "cells", "sums", "fours")
            ],
            [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def written(folder: Path, weights: str) -> Path:
    for name, content in files_of({"graph.onnx": graph()}, weights).items():
        (folder / name).write_bytes(content)
    return folder / "graph.onnx"


def outputs(path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    image = random.normal(size=(1, 4, 8, 8)).astype(np.float32)
    feed = {"tokens": np.arange(90), "image": image, "small": image[0, 0, 0, :1], "four": image[:, :, 0, 0]}
    return dict(zip(("logits", "cells", "sums", "fours"), _session(path, 1).run(None, feed), strict=True))


@pytest.mark.parametrize("weights", SIZES)
def test_a_loaded_graph_computes_in_float32_with_no_more_nodes(tmp_path, monkeypatch, weights):
    """What gives weights back must run once, when the graph is loaded, and not at each step."""

    class Options(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(tmp_path / "loaded.onnx")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    _session(written(tmp_path, weights), 1)
    loaded = onnx.load(tmp_path / "loaded.onnx", load_external_data=False).graph
    operations = Counter(node.op_type for node in loaded.node)
    assert not {"Cast", "DequantizeLinear", "Mul", "Transpose"} & operations.keys()
    assert operations["MatMul"] == 3
    assert {tensor.data_type for tensor in loaded.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}


@pytest.mark.parametrize("weights", SIZES)
def test_results_are_close_to_float32s(tmp_path, weights):
    onnx.save(graph(), tmp_path / "plain.onnx")
    found, expected = outputs(written(tmp_path, weights)), outputs(tmp_path / "plain.onnx")
    share = {"float32": 1e-6, "float16": 1e-3, "int8": 0.02}[weights]
    for name in ("logits", "cells"):
        assert np.abs(found[name] - expected[name]).max() <= share * np.abs(expected[name]).max(), name
    for name in ("sums", "fours"):  # vectors and small matrices are kept as they are
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("weights", SIZES)
def test_a_tied_table_is_stored_once(tmp_path, weights):
    """The exporter writes it twice, once transposed for the product with the hidden state."""
    path = written(tmp_path, weights)
    stored = onnx.load(path).graph
    values = sum(np.prod(tensor.dims) for tensor in stored.initializer if ".scales" not in tensor.name)
    assert values == sum(array.size for name, array in WEIGHTS.items() if name != "output")
    large = 90 * 48 + 48 * 48
    kernel = 32 * 4 * 9 * max(2, SIZES[weights])  # small kernels stay in float16
    content = (tmp_path / "weights.bin").read_bytes()
    pages = 8 * 4096  # each weight begins a page, and scales, the bias and the depthwise kernel take one each
    assert SIZES[weights] * large + kernel <= len(content) <= SIZES[weights] * large + kernel + pages


def test_square_matrices_that_are_not_twins_stay(tmp_path):
    """[48, 48] times its like: the shapes of a transpose, not the values; and a symmetric one is its own."""
    symmetric = WEIGHTS["matrix"] + WEIGHTS["matrix"].T
    files = files_of({"g": graph({**WEIGHTS, "matrix": symmetric})})
    names = {tensor.name for tensor in onnx.load_from_string(files["g"]).graph.initializer}
    assert names == set(WEIGHTS) - {"output"}


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_what_float16_can_not_hold_is_refused(weights):
    large = {**WEIGHTS, "depthwise": WEIGHTS["depthwise"] * 1e6}
    with pytest.raises(
        UsageError, match=r"weight depthwise reaches .*e\+07, and float16 ends at 65,504. Use --weights float32"
    ):
        files_of({"g": graph(large)}, weights)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_int8_is_off_by_half_a_step_at_most(rows, columns, seed):
    random = np.random.default_rng(seed)
    array = (random.normal(size=(rows, columns)) * (random.random((rows, 1)) > 0.2)).astype(np.float32)  # rows of zeros
    for axes in ([0], [1], [0, 1]):
        integers, scales, axis = to_int8(array, axes)
        assert axis in axes
        steps = scales[:, None] if axis == 0 else scales[None]
        assert np.abs(integers).max() <= 127
        assert (np.abs(integers * steps - array) <= 0.5001 * steps).all()


def test_which_axis_may_be_the_output_channels():
    """None in a small kernel: rounding it costs more than it saves. One for each row would ruin EfficientNet."""
    for shape, axes in {
        (512, 352, 3, 3): [0],
        (1280, 352, 1, 1): [0],
        (96, 16, 3, 3): [],
        (96, 1, 5, 5): [],
        (512, 2553): [0, 1],
        (512, 8): [1],
        (1, 512): [0],
    }.items():
        assert output_axes(np.empty(shape, np.float32)) == axes, shape
