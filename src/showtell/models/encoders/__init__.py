"""Encoders: photos in, a grid of features out. `build_encoder(config)` builds any of them by its name."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from showtell.errors import UsageError
from showtell.models.encoders.captioner_vision import PREFIX, CaptionerVisionConfig, build_captioner_vision
from showtell.models.encoders.efficientnet_lite import SCALES, EfficientNetLiteConfig, build_efficientnet_lite
from showtell.models.encoders.encoder import Encoder, EncoderConfigBase, folded
from showtell.models.encoders.timm_backbone import TimmConfig, build_timm
from showtell.models.encoders.transformers_backbone import TransformersConfig, build_transformers

__all__ = ["Encoder", "EncoderConfig", "build_encoder", "encoder_config", "folded"]


def _family(value: Any) -> str:
    """Which of the four kinds of encoder a name means."""
    name = str(value.get("name", "") if isinstance(value, dict) else getattr(value, "name", ""))
    if name in SCALES or not name:
        return "efficientnet_lite"
    if name.startswith(PREFIX):
        return "captioner"
    return "timm" if name.startswith("timm:") else "transformers"


EncoderConfig = Annotated[
    Annotated[EfficientNetLiteConfig, Tag("efficientnet_lite")]
    | Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[TimmConfig, Tag("timm")]
    | Annotated[CaptionerVisionConfig, Tag("captioner")],
    Discriminator(_family),
]


def encoder_config(settings: str | dict[str, Any] | EncoderConfigBase) -> EncoderConfigBase:
    """A name, or settings with a `name`, as the config of that kind of encoder.

    Raises:
        UsageError: a setting is unknown or has an impossible value.
    """
    if isinstance(settings, EncoderConfigBase):
        return settings
    settings = {"name": settings} if isinstance(settings, str) else settings
    try:
        config: EncoderConfigBase = TypeAdapter(EncoderConfig).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"][1:]) or "settings"
        raise UsageError(f"encoder.{setting}: {first['msg']}.") from error
    return config


def build_encoder(settings: str | dict[str, Any] | EncoderConfigBase, *, pretrained: bool = True) -> Encoder:
    """The encoder of a config, frozen and in evaluation mode.

    Args:
        settings: a name, a config, or its fields as a dict, as recipes and bundles hold them.
        pretrained: False leaves the weights random, if the caller has them (from a bundle). Nothing is then
            looked up or downloaded, if the settings are those of `encoder.config`.

    Raises:
        UsageError: the settings are wrong.
        MissingExtraError: the encoder's packages are not installed.
        BundleError: its weights are not available or don't fit.
    """
    config = encoder_config(settings)
    encoder: Encoder
    if isinstance(config, EfficientNetLiteConfig):
        encoder = build_efficientnet_lite(config, pretrained)
    elif isinstance(config, CaptionerVisionConfig):
        encoder = build_captioner_vision(config, pretrained)
    elif isinstance(config, TimmConfig):
        encoder = build_timm(config, pretrained)
    else:
        assert isinstance(config, TransformersConfig)
        encoder = build_transformers(config, pretrained)
    encoder.train_last(0)
    return encoder.eval()
