"""ResNet 18 to 152 from torchvision's weight files, in the ResNet of transformers, without the Hub.

Both are the same network under other names ("version 1.5": a bottleneck strides in its 3 x 3 convolution).
"""

import re
from typing import Any

from torch import Tensor

from showtell.images.decode import Preprocessing

# Depth -> kind of block, blocks in each of the four stages.
DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
# How torchvision's own recipe evaluates: the shorter side to 256, the centre 224 of it.
PREPROCESSING = Preprocessing(
    size=224,
    resize="crop",
    crop_fraction=224 / 256,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def depth_of(name: str) -> int | None:
    """50 for `resnet50`; None for a name that is not a torchvision ResNet."""
    match = re.fullmatch(r"resnet(\d+)", name)
    return int(match[1]) if match and int(match[1]) in DEPTHS else None


def architecture(depth: int) -> dict[str, Any]:
    """The settings of transformers' ResNetConfig for a depth."""
    block, depths = DEPTHS[depth]
    wider = 4 if block == "bottleneck" else 1
    return {
        "model_type": "resnet",
        "layer_type": block,
        "depths": list(depths),
        "embedding_size": 64,
        "hidden_sizes": [width * wider for width in (64, 128, 256, 512)],
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def transformers_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state dict under transformers' names, without its classifier."""
    kind = {"conv": "convolution", "bn": "normalization"}
    renamed = {}
    for key, tensor in weights.items():
        *place, part, leaf = key.split(".")
        if part == "fc":
            continue
        if not place:  # conv1.weight, bn1.bias
            new = f"embedder.embedder.{kind[part[:-1]]}"
        else:  # layer3.0.conv2.weight, layer3.0.downsample.1.bias
            block = f"encoder.stages.{int(place[0].removeprefix('layer')) - 1}.layers.{place[1]}"
            if place[-1] == "downsample":
                new = f"{block}.shortcut.{('convolution', 'normalization')[int(part)]}"
            else:
                new = f"{block}.layer.{int(part[-1]) - 1}.{kind[part[:-1]]}"
        renamed[f"{new}.{leaf}"] = tensor
    return renamed
