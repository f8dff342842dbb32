"""Int8 arithmetic for exported graphs: the products of large weights, computed in integers.

    convolutions        static: each array between them has one scale for all images, measured on photos beforehand, so
                        that a value stays an integer from one convolution to the next; ReLU and ReLU6 cost nothing,
                        as the scale ends where they do
    matrix products     dynamic: what is multiplied gets the scale of its own largest value, at each product; nothing
                        is measured beforehand, and the product is float32 again

Weights are integers from -127 to 127 with a scale for each output channel. What is neither (sums, norms, softmax,
lookups) stays in float32, as do products of two activations and matrices too small to gain.

A dynamic scale is one for the whole batch, so an image's log-probabilities depend a little on who is captioned
with it.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showtell.bundle import ENCODER
from showtell.onnx_weights import SMALL

MEASURED_TOGETHER = 4  # images


def int8_graphs(graphs: Mapping[str, Any], images: NDArray[np.float32]) -> dict[str, Any]:
    """The graphs of a model with int8 arithmetic, by file name.

    Args:
        graphs: in float32, by file name.
        images: photos `[B, 3, S, S]`, as `images.prepare` makes them, that convolutions' scales are measured on.
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
            firsts = range(0, len(images), MEASURED_TOGETHER)
            self.batches = iter([images[first : first + MEASURED_TOGETHER] for first in firsts])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    if all(node.op_type != "Conv" for node in encoder.graph.node):
        return encoder
    with TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            copy(encoder),
            out,
            Photos(),
            # Integer operations by name: the other format is turned into them at load, which `engines/onnx.py` leaves
            # out for the sake of weights that are only stored in fewer bits.
            quant_format=QuantFormat.QOperator,
            # Sums are left out: a residual stream in float32 is no slower, and loses nothing from block to block.
            op_types_to_quantize=["Conv", "Clip", "Relu"],
            per_channel=True,  # or depthwise kernels, whose channels lie far apart, are lost
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return load(out)


def int8_products(graph: Any) -> Any:
    """A graph with its products by large constant matrices in int8."""
    from onnx import load
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2 and tensor.ByteSize() >= SMALL}
    products = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in large]
    if not products:
        return graph
    with TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_dynamic(
            copy(graph),
            out,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[node.name for node in products],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return load(out)


def copy(model: Any) -> Any:
    """The same ONNX model again, which may be changed."""
    other = type(model)()
    other.CopyFrom(model)
    return other
