"""An encoder and a decoder put together: the one module that is trained, saved and searched with."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from showtell.errors import UsageError
from showtell.models.adaptive_attention import AdaptiveAttention, AdaptiveAttentionConfig
from showtell.models.att2in import Att2in, Att2inConfig
from showtell.models.encoders import Encoder, EncoderConfig, build_encoder
from showtell.models.packing import Forced, Packing
from showtell.models.show_and_tell import ShowAndTell, ShowAndTellConfig
from showtell.models.show_attend_and_tell import ShowAttendAndTell, ShowAttendAndTellConfig
from showtell.models.transformer import Transformer, TransformerConfig
from showtell.models.up_down import UpDown, UpDownConfig

Arrays = dict[str, Tensor]
DecoderConfig = Annotated[
    ShowAndTellConfig
    | ShowAttendAndTellConfig
    | Att2inConfig
    | AdaptiveAttentionConfig
    | UpDownConfig
    | TransformerConfig,
    Field(discriminator="name"),
]
DECODERS: dict[str, tuple[type[BaseModel], Callable[[Any, int, int], nn.Module]]] = {
    "show_and_tell": (ShowAndTellConfig, ShowAndTell),
    "show_attend_and_tell": (ShowAttendAndTellConfig, ShowAttendAndTell),
    "att2in": (Att2inConfig, Att2in),
    "adaptive_attention": (AdaptiveAttentionConfig, AdaptiveAttention),
    "up_down": (UpDownConfig, UpDown),
    "transformer": (TransformerConfig, Transformer),
}
"""A decoder's name, its config, and the module that is built from the config, D and V."""


class Decoder(Protocol):
    """What every decoder offers; DESIGN's letters. Axis 0 is the image and axis 1 the hypothesis, in every array."""

    def memory(self, grid: Tensor) -> Arrays:
        """What the steps ask of an image, `[B, ...]`, from its grid `[B, N, D]`; never repeated for hypotheses."""

    def start(self, memory: Arrays) -> Arrays:
        """The state before the first word, `[B, 1, ...]`."""

    def step(self, memory: Arrays, state: Arrays, tokens: Tensor) -> tuple[Tensor, Tensor | None, Arrays]:
        """Last words `[B, K]` -> logits `[B, K, V]`, attention `[B, K, N]` if any, state."""

    def forced(self, memory: Arrays, tokens: Tensor, packing: Packing) -> Forced:
        """Teacher forcing of tokens `[B, K, T]` on the packed positions."""


class CaptioningModel(nn.Module):
    """Images or their cached grids in, logits of their captions out."""

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder: Any = decoder  # a Decoder and a Module, which the type system can't say at once

    def forward(self, inputs: Tensor, tokens: Tensor, packing: Packing) -> Forced:
        """Teacher forcing.

        Args:
            inputs: images `[B, 3, S, S]` as the encoder's preprocessing leaves them, or grids `[B, N, D]`.
            tokens: `<start>` and the words, int64 `[B, K, T]`, longest captions first.
            packing: the positions to compute.
        """
        grid = self.encoder(inputs) if inputs.ndim == 4 else inputs
        forced: Forced = self.decoder.forced(self.decoder.memory(grid), tokens, packing)
        return forced


class ModelConfig(NamedTuple):
    """The two configs that make a model, parsed."""

    encoder: EncoderConfig
    decoder: DecoderConfig


def parse_model_config(encoder: dict[str, Any], decoder: dict[str, Any]) -> ModelConfig:
    """Typed configs from a bundle's JSON; UsageError names what is wrong."""
    try:
        return ModelConfig(
            TypeAdapter[EncoderConfig](EncoderConfig).validate_python(encoder),
            TypeAdapter(DecoderConfig).validate_python(decoder),
        )
    except ValidationError as error:
        raise UsageError(
            f"This model can't be built: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}."
        ) from error


def build_decoder(config: DecoderConfig, feature_width: int, vocabulary: int) -> nn.Module:
    """The decoder that a config names, with fresh weights."""
    return DECODERS[config.name][1](config, feature_width, vocabulary)


def build_model(
    encoder: EncoderConfig, decoder: DecoderConfig, vocabulary: int, *, pretrained: bool = True
) -> CaptioningModel:
    """A model with a fresh decoder.

    Args:
        encoder: which image encoder.
        decoder: which decoder.
        vocabulary: V.
        pretrained: load the encoder's pretrained weights; False when a bundle's weights are about to replace them.
    """
    built = build_encoder(encoder, pretrained=pretrained)
    return CaptioningModel(built, build_decoder(decoder, built.width, vocabulary))
