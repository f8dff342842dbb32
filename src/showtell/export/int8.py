"""Int8 arithmetic for exported graphs: the products of large weights, computed in integers.

    convolutions        static: each array between them has one scale for all images, measured on photos beforehand, so
                        that a value stays an integer from one convolution to the next; ReLU and ReLU6 cost nothing,
                        as the range of the scale ends where they clip
    matrix products     dynamic: each multiplied vector is scaled by its own largest value;
                        nothing is measured beforehand, and the product is float32 again

Rounding a kernel's weights shifts each of its channels by the mean of the rounding errors over its inputs. This shift
is subtracted from the bias; otherwise the shifts of 60 layers add up (Nagel et al. 2019, "Data-Free Quantization
Through Weight Equalization and Bias Correction", section 4.2, here with averages measured on photos).

Weights are integers from -127 to 127 with a scale for each output channel. Everything else (sums, norms, softmax,
lookups) stays in float32, as do products of two activations and matrices too small to gain.

Dynamic scales are never shared between images, so the other images of a batch change an image's log-probabilities by at
most one rounding step. ONNX Runtime's own dynamic quantisation has one scale for the whole batch.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showtell.bundle import ENCODER
from showtell.export.weights import SMALL, replace, to_int8

MEASURED_TOGETHER = 4  # images
LEVELS, ZERO = 127, 128  # a vector's values become ZERO - LEVELS to ZERO + LEVELS
INT8 = "int8"


def int8_graphs(graphs: Mapping[str, Any], images: NDArray[np.float32]) -> dict[str, Any]:
    """The graphs of a model with int8 arithmetic, by file name.

    Args:
        graphs: in float32, by file name.
        images: photos `[B, 3, S, S]` from `images.prepare`, on which the convolutions' scales are measured.
    """
    return {
        name: int8_products(int8_convolutions(graph, images) if name == ENCODER else graph)
        for name, graph in graphs.items()
    }


def int8_convolutions(encoder: Any, images: NDArray[np.float32]) -> Any:
    """An encoder's graph with its convolutions in int8."""
    from onnx import load
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = batches(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    if all(node.op_type != "Conv" for node in encoder.graph.node):
        return encoder
    with TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            with_corrected_biases(encoder, images),
            out,
            Photos(),
            # Integer operations by name: the other format is converted to them at load, which `engines/onnx.py` turns
            # off for the sake of weights that are only stored in fewer bits.
            quant_format=QuantFormat.QOperator,
            # Sums are left out: a residual stream in float32 is no slower, and loses nothing from block to block.
            op_types_to_quantize=["Conv", "Clip", "Relu"],
            per_channel=True,  # needed for depthwise kernels, whose channels differ widely in scale
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return load(out)


def with_corrected_biases(encoder: Any, images: NDArray[np.float32]) -> Any:
    """The graph with biases such that rounding the convolutions' weights changes no channel's average."""
    from onnx import numpy_helper

    corrected = copy(encoder)
    tensors = {tensor.name: tensor for tensor in corrected.graph.initializer}
    convolutions = [node for node in corrected.graph.node if node.op_type == "Conv" and node.input[1] in tensors]
    for node in convolutions:
        if len(node.input) == 2:
            zeros = np.zeros(tensors[node.input[1]].dims[0], np.float32)
            tensors[f"{node.output[0]}.bias"] = corrected.graph.initializer.add()
            tensors[f"{node.output[0]}.bias"].CopyFrom(numpy_helper.from_array(zeros, f"{node.output[0]}.bias"))
            node.input.append(f"{node.output[0]}.bias")
    averages = channel_averages(encoder, sorted({node.input[0] for node in convolutions}), images)
    for node in convolutions:
        kernel = numpy_helper.to_array(tensors[node.input[1]])  # [out, in / groups, ...]
        bias = tensors[node.input[2]]
        integers, scales, _ = to_int8(kernel, [0])
        errors = integers * scales.reshape(-1, *[1] * (kernel.ndim - 1)) - kernel
        sums = errors.reshape(*kernel.shape[:2], -1).sum(axis=2)  # [out, in / groups]
        inputs = averages[node.input[0]].reshape(-1, kernel.shape[1])  # [groups, in / groups]
        shift = (sums * np.repeat(inputs, len(kernel) // len(inputs), axis=0)).sum(axis=1)
        bias.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(bias) - shift).astype(np.float32), bias.name))
    return corrected


def channel_averages(encoder: Any, names: list[str], images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The average of each channel of the arrays `[B, channels, h, w]` of these names, over photos."""
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime import InferenceSession

    measuring = copy(encoder)
    del measuring.graph.output[:]
    measuring.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "average.axes"))
    for name in names:
        node = helper.make_node("ReduceMean", [name, "average.axes"], [f"average.{name}"], keepdims=0)
        measuring.graph.node.append(node)
        measuring.graph.output.append(helper.make_tensor_value_info(f"average.{name}", TensorProto.FLOAT, None))
    session = InferenceSession(measuring.SerializeToString(), providers=["CPUExecutionProvider"])
    sums: dict[str, NDArray[np.float32]] = {}
    for batch in batches(images):
        for name, average in zip(names, session.run(None, {"images": batch}), strict=True):
            sums[name] = sums.get(name, np.float32(0)) + average * np.float32(len(batch) / len(images))
    return sums


def batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The images, a few at a time."""
    for first in range(0, len(images), MEASURED_TOGETHER):
        yield images[first : first + MEASURED_TOGETHER]


def int8_products(graph: Any) -> Any:
    """A graph with its products by large constant matrices in int8."""
    from onnx import numpy_helper

    changed = copy(graph)
    del changed.graph.value_info[:]  # shapes of removed weights
    matrices = {
        tensor.name: tensor
        for tensor in changed.graph.initializer
        if len(tensor.dims) == 2 and tensor.ByteSize() >= SMALL
    }
    constants = {
        f"{INT8}.levels": np.float32(LEVELS),
        f"{INT8}.zero": np.uint8(ZERO),
        f"{INT8}.shift": np.float32(ZERO),
        f"{INT8}.tiny": np.float32(1e-30),
        f"{INT8}.last": np.array([-1]),
    }
    nodes: list[Any] = []
    rounded: set[str] = set()
    for node in changed.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in matrices:
            nodes.append(node)
            continue
        vectors, name = node.input
        if name not in rounded:
            rounded.add(name)
            integers, scales, _ = to_int8(numpy_helper.to_array(matrices[name]), [1])
            constants |= {f"{name}.{INT8}": integers, f"{name}.{INT8}.scales": scales}
        nodes += product(vectors, name, node.output[0])
    if not rounded:
        return graph
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in changed.graph.initializer if tensor.name in used]
    replace(
        changed.graph.initializer, [*kept, *(numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())]
    )
    replace(changed.graph.node, nodes)
    return changed


def product(vectors: str, matrix: str, out: str) -> list[Any]:
    """Nodes that multiply vectors `[..., in]`, each with a scale of its own, by a matrix of int8."""
    from onnx import TensorProto, helper

    def node(operation: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(operation, inputs, [output], name=output, **attributes)

    of = f"{out}.{INT8}"
    return [
        node("Abs", [vectors], f"{of}.sizes"),
        node("ReduceMax", [f"{of}.sizes", f"{INT8}.last"], f"{of}.largest", keepdims=1),
        node("Max", [f"{of}.largest", f"{INT8}.tiny"], f"{of}.divisible"),
        node("Div", [f"{of}.divisible", f"{INT8}.levels"], f"{of}.scale"),
        node("Div", [vectors, f"{of}.scale"], f"{of}.steps"),
        node("Round", [f"{of}.steps"], f"{of}.rounded"),
        node("Add", [f"{of}.rounded", f"{INT8}.shift"], f"{of}.shifted"),
        node("Cast", [f"{of}.shifted"], f"{of}.integers", to=TensorProto.UINT8),
        node("MatMulInteger", [f"{of}.integers", f"{matrix}.{INT8}", f"{INT8}.zero"], f"{of}.sums"),
        node("Cast", [f"{of}.sums"], f"{of}.floats", to=TensorProto.FLOAT),
        node("Mul", [f"{of}.floats", f"{matrix}.{INT8}.scales"], f"{of}.of_columns"),
        node("Mul", [f"{of}.of_columns", f"{of}.scale"], out),
    ]


def copy(model: Any) -> Any:
    """A copy of the ONNX model, which may be changed."""
    other = type(model)()
    other.CopyFrom(model)
    return other
