"""The weights of an exported model for PyTorch, to continue training: what weights.bin holds is not stored twice.

trainable.safetensors holds what weights.bin does not (vectors, scales), and says where the rest is:

    stored       initializer of a graph -> offset in weights.bin, dtype, shape, and for int8 the axis that has scales
    parameters   name in PyTorch -> its shape, and the pieces that it consists of; or the single value that it has

A graph may hold a matrix transposed, or in several parts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

SCALES = "scales of "
"""Before an initializer's name: its scales' name."""


def read_exported_weights(file: Path, weights: Path) -> dict[str, NDArray[Any]]:
    """The state dict, rounded as it is stored; batch norms are folded into the convolutions, and so do nothing here.

    Args:
        file: trainable.safetensors.
        weights: weights.bin.

    Raises:
        OSError, SafetensorError, KeyError, TypeError, ValueError: a file is missing or damaged.
    """
    with safe_open(file, "numpy") as opened:
        own = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dict
        metadata = opened.metadata() or {}
    stored, parameters = json.loads(metadata["stored"]), json.loads(metadata["parameters"])
    content = weights.read_bytes()
    initializers = {name: restored(place, content, own.get(SCALES + name)) for name, place in stored.items()}
    found = {name: array for name, array in own.items() if not name.startswith(SCALES)}
    return found | {name: put_together(parameter, initializers) for name, parameter in parameters.items()}


def restored(place: Mapping[str, Any], content: bytes, scales: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """An initializer in float32, from where it is `stored` in weights.bin."""
    shape = tuple(place["shape"])
    array = np.frombuffer(content, place["dtype"], int(np.prod(shape)), place["offset"]).reshape(shape)
    if scales is None:
        return array.astype(np.float32)
    along = [1] * len(shape)
    along[place["axis"]] = -1
    return array * scales.reshape(along)


def put_together(parameter: Mapping[str, Any], initializers: Mapping[str, NDArray[np.float32]]) -> NDArray[Any]:
    """One of the `parameters`, from its pieces."""
    if "value" in parameter:
        return np.full(parameter["shape"], parameter["value"], parameter["dtype"])
    whole = np.full(parameter["shape"], np.nan, np.float32)
    for name, transposed, axis, begin in parameter["pieces"]:
        piece = initializers[name].T if transposed else initializers[name]
        place = [slice(None)] * whole.ndim
        place[axis] = slice(begin, begin + piece.shape[axis])
        whole[tuple(place)] = piece
    if np.isnan(whole).any():
        raise ValueError("a parameter has gaps")
    return whole
