"""The interface of every encoder: a frozen network from photos to a grid, which knows its own preprocessing.

Letters: B images, S pixels a side, N cells of the grid, D feature width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from showtell.errors import BundleError, UsageError
from showtell.images.decode import Preprocessing

WEIGHT_FILES = "Use a state dict saved as .safetensors, or as .pth by torch.save."


class EncoderConfigBase(BaseModel):
    """The settings that every encoder has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Which network: efficientnet_lite2, resnet50, a hub name, timm:NAME.")
    weights: str = Field(
        default="pretrained",
        description="'pretrained': the published weights; 'random'; or a .pth or .safetensors file.",
    )
    grid: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Cells on a side after adaptive average pooling; by default the grid stays as it is.",
    )


class Encoder(nn.Module, ABC):
    """A network from photos to a grid of features. It starts frozen: see `train_last`.

    A subclass sets the four attributes and implements `features` and `stages`.

    Attributes:
        config: what it was built from; `build_encoder(config, pretrained=False)` gives the same network.
        preprocessing: how photos must be resized and normalised beforehand.
        width: D, the length of one cell's feature.
        grid: the grid's rows and columns; cells run along the rows.
        cells: N, rows x columns; more where the network adds cells of its own before them (a class token).
    """

    config: EncoderConfigBase
    preprocessing: Preprocessing
    width: int
    grid: tuple[int, int]
    cells: int

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """The last feature map, [B, 3, S, S] -> [B, D, rows, columns], not yet pooled to `config.grid`."""

    @property
    @abstractmethod
    def stages(self) -> Sequence[nn.Module]:
        """The parts of the network in order, as fine-tuning counts them."""

    def forward(self, images: Tensor) -> Tensor:
        """Prepared photos [B, 3, S, S] -> features [B, N, D]."""
        maps = self.features(images)  # [B, D, rows, columns]
        if self.config.grid is not None:
            maps = F.adaptive_avg_pool2d(maps, self.config.grid)
        return maps.flatten(2).transpose(1, 2)  # [B, N, D]

    def train_last(self, n_stages: int) -> None:
        """Let the last `n_stages` of `stages` learn, and freeze the rest; 0 freezes everything.

        Raises:
            UsageError: the network has fewer stages.
        """
        if not 0 <= n_stages <= len(self.stages):
            raise UsageError(
                f"{self.config.name} has {len(self.stages)} stages, so {n_stages} of them can't be trained.",
                f"Use a number from 0 to {len(self.stages)}.",
            )
        self.requires_grad_(False)
        for stage in self.stages[len(self.stages) - n_stages :]:
            stage.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """As in PyTorch, but batch norm keeps its ImageNet statistics: a batch of 32 would spoil them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def measure(encoder: Encoder) -> None:
    """Set `encoder.width` and `encoder.grid` by encoding a blank photo."""
    size = encoder.preprocessing.size
    with torch.inference_mode():
        _, width, rows, columns = encoder.eval().features(torch.zeros(1, 3, size, size)).shape
    side = encoder.config.grid
    encoder.width = width
    encoder.grid = (rows, columns) if side is None else (side, side)
    encoder.cells = encoder.grid[0] * encoder.grid[1]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or in a .pth file, which is read without running anything in it.

    Raises:
        BundleError: there is no such file, or it holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BundleError(f"The weights {path} can't be opened: {error.strerror or error}.") from error
    except Exception as error:  # whatever a damaged file causes
        raise BundleError(f"{path} is not a file of weights.", WEIGHT_FILES) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise BundleError(f"{path} holds something other than a state dict.", WEIGHT_FILES)
    return weights


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Copy `weights` into `network`: every parameter, exactly.

    Raises:
        BundleError: names or shapes differ; the error gives the first of them.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name in [*own, *(name for name in weights if not name.endswith("num_batches_tracked"))]:
        here, there = own.get(name), weights.get(name)
        if here is None or there is None or here.shape != there.shape:
            expected = "nothing" if here is None else list(here.shape)
            found = "nothing" if there is None else list(there.shape)
            raise BundleError(f"{path} is of another network: {name} is {found} there, but {expected} here.")
    network.load_state_dict(weights, strict=False)


def folded(encoder: Encoder) -> Encoder:
    """A frozen copy for inference: each batch norm folded into the convolution before it, channels last.

    The outputs are the same up to rounding; on two cores the copy is about 1.5 times as fast.
    """
    encoder = deepcopy(encoder).eval().requires_grad_(False)
    for parent in list(encoder.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
