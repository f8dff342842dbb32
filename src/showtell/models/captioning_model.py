"""An encoder and a decoder together: the module that is trained, saved and used for search."""

import sys
from importlib import import_module
from typing import Annotated, Any, Union, get_type_hints

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import CoreSchema
from torch import Tensor, nn

from showtell.errors import UsageError
from showtell.models.decoder import Decoder, DecoderConfig, Forced
from showtell.models.encoders import Encoder, build_encoder
from showtell.models.encoders.encoder import EncoderConfigBase
from showtell.models.packing import Packing

DECODERS = {
    "show_and_tell": "showtell.models.show_and_tell:ShowAndTell",
    "show_attend_and_tell": "showtell.models.show_attend_and_tell:ShowAttendAndTell",
    "att2in": "showtell.models.att2in:Att2in",
    "adaptive_attention": "showtell.models.adaptive_attention:AdaptiveAttention",
    "up_down": "showtell.models.up_down:UpDown",
    "transformer": "showtell.models.transformer:Transformer",
    "pretrained": "showtell.models.pretrained.decoder:PretrainedDecoder",
}
"""Decoders' names, and where their classes are. Other decoders are named by that: `my_module:MyDecoder`."""


def decoder_class(name: str) -> type[Decoder]:
    """The decoder class of a name in `DECODERS`, or of `module:Class`, which is imported.

    Raises:
        UsageError: there is none, or the class is not a `Decoder`.
    """
    module, _, attribute = DECODERS.get(name, name).partition(":")
    try:
        found = getattr(import_module(module), attribute, None)
    except (ImportError, ValueError, TypeError) as error:  # the latter two if it is not the name of a module
        raise UsageError(
            f"The decoder {name} can't be imported: {error}.", "Install its package, or add its folder to PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Decoder)):
        raise UsageError(f"{name} is not a decoder.", "Name a class that derives from showtell.models.decoder.Decoder.")
    return found


def config_class(name: str) -> type[DecoderConfig]:
    """The config class of a decoder: the annotation of `config` in its class."""
    found: type[DecoderConfig] = get_type_hints(decoder_class(name))["config"]
    return found


def _of_module(value: Any, of_table: ValidatorFunctionWrapHandler) -> DecoderConfig:
    """A decoder's settings, read as the config of the class that they name."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or ":" not in name:
        return of_table(value)  # type: ignore[no-any-return]
    try:
        return config_class(name).model_validate(value)
    except ValidationError as error:  # not as it is: a recipe's problems are looked up among its known keys
        raise ValueError(_told(error)) from error


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def _schema(_: type[DecoderConfig], handler: GetCoreSchemaHandler) -> CoreSchema:
    of_table: Any = Annotated[Union[tuple(map(config_class, DECODERS))], Field(discriminator="name")]  # noqa: UP007
    return handler.generate_schema(Annotated[of_table, WrapValidator(_of_module)])


AnyDecoderConfig = SerializeAsAny[Annotated[DecoderConfig, GetPydanticSchema(_schema)]]
"""A field of a recipe for the config of any decoder; its `name` chooses which."""


class CaptioningModel(nn.Module):
    """Images or their cached grids in, logits of their captions out."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, inputs: Tensor, tokens: Tensor, packing: Packing) -> Forced:
        """Teacher forcing.

        Args:
            inputs: images `[B, 3, S, S]` as the encoder's preprocessing leaves them, or grids `[B, N, D]`.
            tokens: `<start>` and the words, int64 `[B, K, T]`, longest captions first.
            packing: the positions to compute.
        """
        grid = self.encoder(inputs) if inputs.ndim == 4 else inputs
        return self.decoder.forced(self.decoder.memory(grid), tokens, packing)


def decoder_config(settings: dict[str, Any]) -> DecoderConfig:
    """A bundle's settings as the config of the decoder that they name.

    A bundle may come from anywhere, so its decoder's module is not imported here: it must have been imported before.

    Raises:
        UsageError: a setting is wrong, or a module must be imported first.
    """
    name = str(settings.get("name"))
    module, colon, _ = name.partition(":")
    if colon and module not in sys.modules:
        raise UsageError(
            f"This model's decoder is {name}, and showtell never imports a module because a model names it.",
            f"If you trust it, use 'showtell --decoder-module {module} ...', or import it before you load the model.",
        )
    try:
        return TypeAdapter[DecoderConfig](AnyDecoderConfig).validate_python(settings)
    except ValidationError as error:
        raise UsageError(f"This model's decoder can't be built: {_told(error)}.") from error


def build_decoder(config: DecoderConfig, feature_width: int, vocabulary: int) -> Decoder:
    """The decoder that a config names, with fresh weights."""
    return decoder_class(config.name)(config, feature_width, vocabulary)


def build_model(
    encoder: EncoderConfigBase, decoder: DecoderConfig, vocabulary: int, *, pretrained: bool = True
) -> CaptioningModel:
    """A model with a fresh decoder.

    Args:
        encoder: which image encoder.
        decoder: which decoder.
        vocabulary: V.
        pretrained: load the encoder's pretrained weights; False if a bundle's weights will replace them.
    """
    built = build_encoder(encoder, pretrained=pretrained)
    return CaptioningModel(built, build_decoder(decoder, built.width, vocabulary))
