"""The image half of captioners from `transformers`: everything that their words attend to, including the class token.

The ViT of BLIP, GIT and BLIP-2, or any backbone of a vision-encoder-decoder. BLIP-2's words attend to the answers to a
few learned queries about the image (its Q-Former), which are not places in it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from showtell.errors import UsageError, needs
from showtell.models.encoders.transformers_backbone import (
    TransformersConfig,
    TransformersEncoder,
    grid_of,
    other_size,
    patch_of,
)
from showtell.models.encoders.transformers_names import float32, without_programs

PREFIX = "hf:"
OWN = {"blip_vision_model": "BlipVision", "git_vision_model": "GitVision", "blip_2_vision_model": "Blip2Vision"}
"""Backbones that transformers' Auto classes don't know, and the beginnings of their class names."""


class CaptionerVisionConfig(TransformersConfig):
    """The image half of a captioner; it follows from the model that was loaded."""

    architecture: dict[str, Any] = Field({}, description="The backbone's settings in transformers.")
    queries: dict[str, Any] | None = Field(
        None, description="Settings of BLIP-2's Q-Former; none for other captioners."
    )
    num_queries: int = Field(0, ge=0, description="How many queries BLIP-2 has.")
    projected: int = Field(0, ge=0, description="Width of what BLIP-2's words look at.")


class CaptionerVision(TransformersEncoder):
    """Photos `[B, 3, S, S]` -> `[B, N, D]`: the class token, if there is one, then the cells of the grid."""

    config: CaptionerVisionConfig

    def measure(self) -> None:
        """Set width, grid and cells, without computing anything."""
        hidden, maps = shapes_of(self.config, self.preprocessing.size)
        self.width, self.cells, self.grid = hidden[2], hidden[1], (maps[2], maps[3])

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.hidden(images)


class Seen(NamedTuple):
    """The output of transformers' models, as far as it is used."""

    last_hidden_state: Tensor


class Queries(nn.Module):
    """BLIP-2's image half: a ViT, learned queries that attend to it, and a projection."""

    def __init__(self, config: CaptionerVisionConfig, vision: nn.Module) -> None:
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__()
        settings = Blip2QFormerConfig(**without_programs(config.queries or {}))
        self.vision_model = vision
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, settings.hidden_size))
        self.qformer = Blip2QFormerModel._from_config(settings)  # type: ignore[no-untyped-call]
        self.language_projection = nn.Linear(settings.hidden_size, config.projected)

    @property
    def config(self) -> Any:
        return None

    def forward(self, pixel_values: Tensor) -> Seen:
        """Photos -> the answers `[B, queries, D]`."""
        seen = self.vision_model(pixel_values=pixel_values).last_hidden_state
        queries = self.query_tokens.expand(len(seen), -1, -1)
        answers = self.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return Seen(self.language_projection(answers))


def build_captioner_vision(config: CaptionerVisionConfig, pretrained: bool) -> CaptionerVision:
    """The image half of a captioner, with random weights: the model's own are loaded later.

    Raises:
        MissingExtraError: transformers is not installed.
        UsageError: its weights are requested, or its settings are missing.
    """
    if not config.architecture or (pretrained and config.weights == "pretrained"):
        raise UsageError(
            f"The encoder {config.name} is half of a captioner and can't be used alone.",
            f"Start from the captioner, in a recipe: start_from: {config.name}.",
        )
    with needs("encoders", f"The encoder {config.name}"):
        import transformers  # noqa: F401
    return CaptionerVision(config, network_of(config))


def network_of(config: CaptionerVisionConfig) -> nn.Module:
    """The network, with random weights."""
    import transformers

    library: Any = transformers
    settings = without_programs(config.architecture)
    own = OWN.get(str(settings.get("model_type")))
    if own is None:
        network = library.AutoModel.from_config(library.AutoConfig.for_model(**settings), **float32())
    else:
        network = getattr(library, f"{own}Model")._from_config(getattr(library, f"{own}Config")(**settings))
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network if config.queries is None else Queries(config, network)


def shapes_of(config: CaptionerVisionConfig, size: int) -> tuple[torch.Size, torch.Size]:
    """The shapes for one photo: of all cells `[1, N, D]`, and of the grid `[1, D, rows, columns]`."""
    with torch.device("meta"):
        network = network_of(config).eval()
        hidden = network(pixel_values=torch.zeros(1, 3, size, size), **other_size(network, size)).last_hidden_state
    if config.queries is not None:
        return hidden.shape, torch.Size((1, hidden.shape[2], 1, hidden.shape[1]))
    return hidden.shape, grid_of(hidden, size, patch_of(network.config)).shape


def settings_of(network: Any) -> Mapping[str, Any]:
    """A backbone's settings, as `CaptionerVisionConfig` holds them."""
    found: dict[str, Any] = network.config.to_diff_dict()
    return found | {"model_type": network.config.model_type}
