"""What an exported model needs for further training: where each of PyTorch's weights is in weights.bin.

The exporter transposes and splits matrices and gives them names like val_12, so they are found by their values.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from showtell.bundle import ONNX_WEIGHTS
from showtell.export.weights import SMALL
from showtell.exported_weights import SCALES, put_together, restored
from showtell.models.captioning_model import CaptioningModel

Floats = NDArray[np.float32]
Piece = tuple[str, bool, int, int]
"""An initializer's name, whether it is transposed, the axis along which it is a part, and where it begins there."""


def trainable_file(model: CaptioningModel, graphs: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The content of trainable.safetensors.

    Args:
        model: the trained model.
        graphs: its ONNX models in float32, by file name.
        files: the files that `files_of` made from them.
    """
    from onnx import numpy_helper
    from safetensors.numpy import save

    stored, scales, inline = places_of(files)
    rounded = inline | {name: restored(place, files[ONNX_WEIGHTS], scales.get(name)) for name, place in stored.items()}
    arrays = {
        f"{file}:{tensor.name}": numpy_helper.to_array(tensor)
        for file, graph in graphs.items()
        for tensor in graph.graph.initializer
        if f"{file}:{tensor.name}" in rounded
    }
    own, parameters = dict[str, NDArray[Any]](), dict[str, dict[str, Any]]()
    for name, tensor in melted(model).state_dict().items():
        array = tensor.detach().cpu().numpy()
        pieces = pieces_of(array, arrays) if array.ndim > 1 else []
        if array.size and (array == array.flat[0]).all():
            value = {"value": array.flat[0].item(), "dtype": str(array.dtype)}
            parameters[name] = {"shape": array.shape, **value}
        elif pieces and all(piece[0] in stored for piece in pieces):
            parameters[name] = {"shape": array.shape, "pieces": pieces}
        elif pieces:
            own[name] = put_together({"shape": array.shape, "pieces": pieces}, rounded)
        else:
            own[name] = np.ascontiguousarray(array)
    used = {piece[0] for parameter in parameters.values() for piece in parameter.get("pieces", ())}
    own |= {SCALES + name: found for name, found in scales.items() if name in used}
    kept = {name: place for name, place in stored.items() if name in used}
    return save(own, {"stored": json.dumps(kept), "parameters": json.dumps(parameters)})


def melted(model: CaptioningModel) -> CaptioningModel:
    """A copy that computes the same, with folded batch norms: each only adds its convolution's bias in `folded`."""
    model = deepcopy(model).eval()
    with torch.no_grad():
        for parent in list(model.encoder.modules()):
            for (_, conv), (_, norm) in pairwise(list(parent.named_children())):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(conv, norm)
                    conv.weight.copy_(fused.weight)
                    if conv.bias is not None:
                        conv.bias.zero_()
                    norm.load_state_dict(
                        {
                            "weight": torch.ones_like(norm.weight),
                            "bias": fused.bias,
                            "running_mean": torch.zeros_like(norm.weight),
                            "running_var": torch.full_like(norm.weight, 1 - norm.eps),
                            "num_batches_tracked": torch.tensor(0),
                        }
                    )
    return model


def places_of(
    files: Mapping[str, bytes],
) -> tuple[dict[str, dict[str, Any]], dict[str, Floats], dict[str, Floats]]:
    """Initializers of two axes or more, by FILE:NAME, with their float32 names.

    Returns:
        Where they are in weights.bin; the scales of int8 ones; and the values of those that a graph itself holds.
    """
    from onnx import load_model_from_string, numpy_helper
    from onnx.helper import tensor_dtype_to_np_dtype

    stored: dict[str, dict[str, Any]] = {}
    scales: dict[str, Floats] = {}
    inline: dict[str, Floats] = {}
    content = files[ONNX_WEIGHTS]
    for file in files.keys() - {ONNX_WEIGHTS}:
        graph = load_model_from_string(files[file]).graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        # A rounded weight's old name is that of the output of the node that restores it.
        rounded = {node.input[0]: node for node in graph.node if node.op_type in ("DequantizeLinear", "Cast")}
        for tensor in graph.initializer:
            if len(tensor.dims) < 2:
                continue
            node = rounded.get(tensor.name)
            name = f"{file}:{tensor.name if node is None else node.output[0]}"
            dtype = str(np.dtype(tensor_dtype_to_np_dtype(tensor.data_type)))
            place = {"offset": offset_of(tensor), "dtype": dtype, "shape": list(tensor.dims)}
            if node is not None and node.op_type == "DequantizeLinear":
                of_axis = tensors[node.input[1]]
                place["axis"] = next(each.i for each in node.attribute if each.name == "axis")
                begin = offset_of(of_axis)
                scales[name] = (
                    numpy_helper.to_array(of_axis)
                    if begin is None
                    else np.frombuffer(content, np.float32, of_axis.dims[0], begin)
                )
            if place["offset"] is not None:
                stored[name] = place
            elif node is not None:
                inline[name] = restored({**place, "offset": 0}, tensor.raw_data, scales.get(name))
    return stored, scales, inline


def offset_of(tensor: Any) -> int | None:
    """Where an initializer is in weights.bin; None if its graph holds it."""
    return next((int(entry.value) for entry in tensor.external_data if entry.key == "offset"), None)


def pieces_of(array: Floats, initializers: Mapping[str, Floats]) -> list[Piece]:
    """The pieces that make up a weight; none if there are gaps."""
    pieces: list[Piece] = []
    covered = np.zeros(array.shape, bool) if array.ndim == 2 else None
    for name, original in initializers.items():
        if original.ndim != array.ndim or original.nbytes < SMALL:
            continue
        if original.shape == array.shape and np.array_equal(original, array):
            return [(name, False, 0, 0)]
        if covered is None:
            continue
        for transposed, piece in ((False, original), (True, original.T)):
            for axis in (0, 1):
                if piece.shape[1 - axis] != array.shape[1 - axis] or piece.shape[axis] > array.shape[axis]:
                    continue
                rows, first = (array, piece[0]) if axis == 0 else (array.T, piece[:, 0])
                for begin in np.flatnonzero((rows == first).all(1)).tolist():
                    place = (slice(begin, begin + piece.shape[0]), slice(None))
                    place = place if axis == 0 else (slice(None), slice(begin, begin + piece.shape[1]))
                    if np.array_equal(array[place], piece) and not covered[place].any():
                        covered[place] = True
                        pieces.append((name, transposed, axis, begin))
    return pieces if covered is not None and covered.all() else []
