"""Int8 arithmetic: what rounding shifts on average is taken from the biases, and small products are left alone."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from showtell.export.int8 import int8_products, with_corrected_biases
from showtell.export.weights import to_int8

RANDOM = np.random.default_rng(0)


def convolution(groups: int, bias: bool) -> onnx.ModelProto:
    """[B, 8, h, w] -> [B, 16, h, w], 1 x 1."""
    kernel = RANDOM.normal(size=(16, 8 // groups, 1, 1)).astype(np.float32)
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["images", "kernel", *(["bias"] if bias else [])], ["grid"], group=groups)],
            "test",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 8, 5, 5])],
            [helper.make_tensor_value_info("grid", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(kernel, "kernel"),
                *([numpy_helper.from_array(np.ones(16, np.float32), "bias")] if bias else []),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def channel_means(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0].mean(axis=(0, 2, 3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_rounded_kernels_give_the_same_on_average(groups, bias):
    """Seven images, which the batches of four do not divide; groups have inputs of their own."""
    images = (RANDOM.random((7, 8, 5, 5)) * np.arange(1, 9)[:, None, None]).astype(np.float32)
    model = convolution(groups, bias)
    expected = channel_means(model, images)
    corrected = with_corrected_biases(model, images)
    kernel = corrected.graph.initializer[0]
    integers, scales, _ = to_int8(numpy_helper.to_array(kernel), [0])
    kernel.CopyFrom(numpy_helper.from_array(integers * scales[:, None, None, None], "kernel"))
    np.testing.assert_allclose(channel_means(corrected, images), expected, atol=1e-4)


def products(*names: str) -> onnx.ModelProto:
    """Products of x `[n, 32]` and matrices, or a vector, of these names; in int8 where that pays."""
    shapes = {"large": (32, 32), "small": (32, 4), "vector": (32,)}
    random = np.random.default_rng(1)
    arrays = [numpy_helper.from_array(random.normal(size=shapes[n]).astype(np.float32), n) for n in names]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], [f"{name}.out"], name=name) for name in names],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None) for name in names],
        arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_products_of_small_matrices_and_vectors_stay():
    """A product with a vector has no channels to scale: ONNX Runtime's own choice can't be loaded."""
    model = int8_products(products("large", "small", "vector"))
    assert sum(node.op_type == "MatMulInteger" for node in model.graph.node) == 1
    assert {node.input[1] for node in model.graph.node if node.op_type == "MatMul"} == {"small", "vector"}
    outputs(model, np.ones((2, 32), np.float32))


def test_each_vector_has_a_scale_of_its_own():
    """With one scale for all, an image's captions would depend on those beside it: the second row would be noise."""
    x = RANDOM.normal(size=(4, 32)).astype(np.float32) * np.array([[1e3], [1e-3], [0], [1]], np.float32)
    model = products("large")
    expected, together = outputs(model, x), outputs(int8_products(model), x)
    for row in range(4):
        np.testing.assert_array_equal(together[row], outputs(int8_products(model), x[row : row + 1])[0])
        np.testing.assert_allclose(together[row], expected[row], atol=0.03 * max(np.abs(expected[row]).max(), 1e-9))
