"""`timm:NAME`: any backbone of timm as an encoder, if timm is installed. Nothing else here imports it."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from showtell.errors import BundleError, UsageError, needs
from showtell.images.decode import Preprocessing
from showtell.models.encoders.encoder import Encoder, EncoderConfigBase, measure


class TimmConfig(EncoderConfigBase):
    """A backbone of timm. Building it fills in its preprocessing, so that a bundle has it."""

    preprocessing: Preprocessing | None = Field(
        default=None,
        description="How photos are resized and normalised; none: as published with the backbone.",
    )


class TimmEncoder(Encoder):
    """Photos [B, 3, S, S] -> the backbone's features before pooling, as [B, N, D]."""

    def __init__(self, config: TimmConfig, network: Any) -> None:
        super().__init__()
        assert config.preprocessing is not None
        self.config = config
        self.preprocessing = config.preprocessing
        self.network = network
        measure(self)

    @property
    def stages(self) -> list[nn.Module]:
        """The backbone's stages or blocks, whichever it has."""
        for name in ("stages", "blocks", "layers"):
            if isinstance(parts := getattr(self.network, name, None), (nn.Sequential, nn.ModuleList)):
                return list(parts)
        return list(self.network.children())

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, D, rows, columns]."""
        maps: Tensor = self.network.forward_features(images)
        if maps.ndim == 3:  # tokens: the class and register tokens come first
            maps = maps[:, getattr(self.network, "num_prefix_tokens", 0) :].transpose(1, 2)
            side = round(maps.shape[2] ** 0.5)
            return maps.reshape(len(maps), -1, side, side)
        if maps.shape[1] != self.network.num_features:  # Swin's map has its channels last
            maps = maps.permute(0, 3, 1, 2)
        return maps


def build_timm(config: TimmConfig, pretrained: bool) -> TimmEncoder:
    """The backbone of `config`, if `pretrained` with its published weights.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: timm knows no such backbone, or a weight file is named.
        BundleError: its weights are not available.
    """
    with needs("timm", f"The encoder {config.name}"):
        import timm
    name = config.name.removeprefix("timm:")
    if not timm.is_model(name):
        raise UsageError(f"timm has no backbone called {name}.", "See timm.list_models().")
    if config.weights not in ("pretrained", "random"):
        raise UsageError(f"encoder.weights can't be a file for {config.name}.", "Use 'pretrained' or 'random'.")
    try:
        network = timm.create_model(name, pretrained=pretrained and config.weights == "pretrained", num_classes=0)
    except (OSError, RuntimeError) as error:
        raise BundleError(f"The weights of {config.name} can't be loaded: {error}", "Check the connection.") from error
    preprocessing = config.preprocessing or _published_preprocessing(timm.data.resolve_model_data_config(network))
    return TimmEncoder(config.model_copy(update={"preprocessing": preprocessing}), network)


def _published_preprocessing(found: dict[str, Any]) -> Preprocessing:
    """timm's data config as our `Preprocessing`."""
    interpolation = found["interpolation"]
    return Preprocessing(
        size=found["input_size"][-1],
        resize="squash" if found.get("crop_mode") == "squash" else "crop",
        crop_fraction=found["crop_pct"],
        interpolation=interpolation if interpolation in ("bilinear", "bicubic", "lanczos") else "bicubic",
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
    )
