"""How an exported model's weights are stored: each once, in a file that the graphs share, and rounded on request.

Rounding is for the disk only. A node after each rounded weight converts it to float32, and ONNX Runtime computes all
that depends only on constants when it loads a graph: from then on the graph has float32 weights.

    float32     as trained
    float16     half the size: kernels, matrices and tables rounded to 11 significant bits
    int8        a quarter to a third: integers from -127 to 127 and a float32 scale for each output channel; in float16
                depthwise kernels, whose channels have too few values to share a scale, and convolutions' kernels up to
                SENSITIVE values: they hold a small share of the weights, and most of what rounding costs

Vectors (biases, norms) are small, and stay in float32.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from showtell.bundle import ONNX_WEIGHTS
from showtell.errors import UsageError

Weights = Literal["float32", "float16", "int8"]

SMALL = 1024  # bytes; smaller constants (shapes, axes) stay in the graph, whose optimiser reads them
PAGE = 4096
SHARED = 32  # values that share a scale; with fewer, a scale costs more than it saves
SENSITIVE = 300_000  # values; the model everyday lost two points of CIDEr with all kernels in int8, and half a one so


def files_of(graphs: Mapping[str, Any], weights: Weights = "float32") -> dict[str, bytes]:
    """The files of ONNX models by name, and one file with all their large constants, each stored once.

    Raises:
        UsageError: a weight is too large for float16.
    """
    content = bytearray()
    places: dict[bytes, int] = {}
    files = {}
    for name, original in graphs.items():
        model = type(original)()
        model.CopyFrom(original)
        share_transposed(model.graph)
        if weights != "float32":
            round_weights(model.graph, weights)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= SMALL:
                digest = sha256(tensor.raw_data).digest()
                if digest not in places:
                    content.extend(bytes(-len(content) % PAGE))
                    places[digest] = len(content)
                    content.extend(tensor.raw_data)
                refer(tensor, places[digest])
        files[name] = model.SerializeToString()
    return files | {ONNX_WEIGHTS: bytes(content)}


def refer(tensor: Any, offset: int) -> None:
    """Replace a tensor's values by their place in the file of weights."""
    from onnx import TensorProto

    place = {"location": ONNX_WEIGHTS, "offset": offset, "length": len(tensor.raw_data)}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def share_transposed(graph: Any) -> None:
    """Keep only one of two matrices that are transposes of each other: an output layer tied to the embedding."""
    from onnx import helper, numpy_helper

    names: dict[tuple[tuple[int, ...], bytes], str] = {}
    kept, nodes = [], []
    for tensor in graph.initializer:
        if len(tensor.dims) == 2 and len(tensor.raw_data) >= SMALL:
            transposed = numpy_helper.to_array(tensor).T
            twin = names.get((transposed.shape, sha256(transposed.tobytes()).digest()))
            if twin is not None:
                nodes.append(helper.make_node("Transpose", [twin], [tensor.name], perm=[1, 0]))
                continue
            names[tuple(tensor.dims), sha256(tensor.raw_data).digest()] = tensor.name
        kept.append(tensor)
    replace(graph.initializer, kept)
    replace(graph.node, [*nodes, *graph.node])


def round_weights(graph: Any, weights: Weights) -> None:
    """Store the graph's large kernels, matrices and tables in fewer bits; its first nodes restore them.

    Raises:
        UsageError: a weight is too large for float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    stored, nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or len(tensor.raw_data) < SMALL:
            stored.append(tensor)
            continue
        array = numpy_helper.to_array(tensor)
        axes = output_axes(array) if weights == "int8" else []
        names = [f"{tensor.name}.{'int8' if axes else 'float16'}"]
        if axes:
            integers, scales, axis = to_int8(array, axes)
            names.append(f"{tensor.name}.scales")
            stored += [numpy_helper.from_array(integers, names[0]), numpy_helper.from_array(scales, names[1])]
            nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
        else:
            stored.append(numpy_helper.from_array(to_float16(array, tensor.name), names[0]))
            nodes.append(helper.make_node("Cast", names, [tensor.name], to=TensorProto.FLOAT))
    replace(graph.initializer, stored)
    replace(graph.node, [*nodes, *graph.node])


def output_axes(array: NDArray[np.float32]) -> list[int]:
    """The axes that may hold the output channels, with enough values in each; none for a kernel that stays in float16.

    For a convolution it is the first axis. For a matrix only its use would tell, and a tied table is used both ways.
    """
    if array.ndim > 2 and array.size <= SENSITIVE:
        return []
    axes = [0] if array.ndim > 2 else [0, 1]
    return [axis for axis in axes if array.size >= SHARED * array.shape[axis]]


def to_int8(array: NDArray[np.float32], axes: list[int]) -> tuple[NDArray[np.int8], NDArray[np.float32], int]:
    """Integers, a scale for each index of an axis, and that axis: the one of `axes` with the least error."""
    found = []
    for axis in axes:
        others = tuple(other for other in range(array.ndim) if other != axis)
        scales = np.abs(array).max(axis=others, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        integers = np.rint(array / scales)
        lost = float(np.square(integers * scales - array).sum(dtype=np.float64))
        found.append((lost, axis, integers.astype(np.int8), scales.ravel()))
    _, axis, integers, scales = min(found, key=lambda each: each[:2])
    return integers, scales, axis


def to_float16(array: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """The array in half precision.

    Raises:
        UsageError: it has a value beyond 65,504.
    """
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise UsageError(
            f"The weight {name} reaches {np.abs(array).max():.3g}, and float16 ends at 65,504.",
            "Use --weights float32.",
        )
    return half


def replace(field: Any, values: list[Any]) -> None:
    """Replace the values of a repeated field by `values`."""
    kept = [*values]
    del field[:]
    field.extend(kept)
