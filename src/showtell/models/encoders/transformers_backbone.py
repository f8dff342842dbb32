"""Any vision backbone of Hugging Face transformers as an encoder, by its Hub name or its folder.

`resnet50` and `resnet101` are `microsoft/resnet-50` and `-101`. The map of a network that returns one (ResNet,
ConvNeXt) is used as it is. The tokens of others (ViT, DINOv2, CLIP, SigLIP, Swin) are laid out as a map, without the
class and register tokens at the beginning. If a network has learned positions and photos have another size,
transformers interpolates them.
"""

from collections.abc import Callable
from inspect import signature
from math import isqrt
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field
from torch import Tensor, nn

from showtell.errors import BundleError, UsageError, needs
from showtell.images.decode import Preprocessing
from showtell.models.encoders.encoder import (
    Encoder,
    EncoderConfigBase,
    load_weights,
    measure,
    read_weights,
)
from showtell.models.encoders.torchvision_resnet import (
    DEPTHS,
    PREPROCESSING,
    architecture,
    depth_of,
    transformers_names,
)
from showtell.models.encoders.transformers_names import COUNTED, float32, own_names, quiet, without_programs

ALIASES = {f"resnet{depth}": f"microsoft/resnet-{depth}" for depth in DEPTHS}
CLIPS = ("Blip", "CLIP")  # whose processors use CLIP's colours and bicubic by default
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = {"Blip": {"height": 384, "width": 384}, "CLIP": {"shortest_edge": 224}, "ViT": {"height": 224, "width": 224}}
"""A processor's default size, by the beginning of its class name."""
RESAMPLING: dict[int, Literal["bilinear", "bicubic", "lanczos"]] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
MOBILECLIP = "Use timm:fastvit_mci0.apple_mclip (S0; mci1 is S1, mci2 is S2) or timm:vit_base_mci_224.apple_mclip (B)."
UNUSED = {"pooler", "mask_token", "num_batches_tracked"}  # weights that a folder may lack
T = TypeVar("T")


class TransformersConfig(EncoderConfigBase):
    """A backbone of transformers. Building it fills in what the Hub says, so that a bundle has it."""

    size: int | None = Field(
        default=None, ge=16, le=2048, description="Pixels a side; none: as the backbone's preprocessing says."
    )
    preprocessing: Preprocessing | None = Field(
        default=None,
        description="How photos are resized and normalised; none: as published with the backbone.",
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="The backbone's settings in transformers; none: as published under its name.",
    )


class TransformersEncoder(Encoder):
    """Photos [B, 3, S, S] -> the backbone's last hidden state as [B, N, D]."""

    def __init__(self, config: TransformersConfig, network: nn.Module) -> None:
        super().__init__()
        assert config.preprocessing is not None
        self.config = config
        self.preprocessing = config.preprocessing
        self.network = network
        self.register_load_state_dict_pre_hook(_under_own_names)  # type: ignore[no-untyped-call]
        size, settings = self.preprocessing.size, network.config
        self.patch = patch_of(settings)
        if self.patch and size % self.patch:
            below = size // self.patch * self.patch
            raise UsageError(
                f"{config.name} can't see photos of {size} pixels: its patches have {self.patch} pixels a side.",
                f"Set encoder.size to {f'{below} or ' if below else ''}{below + self.patch}.",
            )
        self.options = other_size(network, size)
        try:
            self.measure()
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"{config.name} can't see photos of {size} pixels: {error}") from error

    def measure(self) -> None:
        """Set width, grid and cells."""
        measure(self)

    @property
    def stages(self) -> list[nn.Module]:
        """The stages of a ResNet, ConvNeXt or Swin, the blocks of a ViT."""
        lists = [list(module) for module in self.network.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=_parameter_count)

    def features(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, D, rows, columns]."""
        return grid_of(self.hidden(images), images.shape[-1], self.patch)

    def hidden(self, images: Tensor) -> Tensor:
        """The last hidden state: a map [B, D, rows, columns], or tokens [B, N, D]."""
        hidden: Tensor = self.network(pixel_values=images, **self.options).last_hidden_state
        return hidden


def other_size(network: nn.Module, size: int) -> dict[str, bool]:
    """The arguments that a network needs for photos of another size than in its training, if it needs any."""
    flexible = "interpolate_pos_encoding" in signature(network.forward).parameters
    other = getattr(network.config, "image_size", size) not in (size, [size, size], (size, size))
    return {"interpolate_pos_encoding": True} if flexible and other else {}


def patch_of(settings: Any) -> int | None:
    """The side of a patch in pixels, if patches stay as they are: Swin and the like, with depths, merge them."""
    patch = getattr(settings, "patch_size", None)
    return patch if isinstance(patch, int) and not hasattr(settings, "depths") else None


def grid_of(hidden: Tensor, size: int, patch: int | None) -> Tensor:
    """The last hidden state of photos of `size` pixels, with patches of `patch` pixels -> [B, D, rows, columns]."""
    if hidden.ndim == 4:
        return hidden
    tokens = hidden.shape[1]
    cells = (size // patch) ** 2 if patch else tokens
    if cells > tokens:  # ViT-MAE hides three of four patches
        raise ValueError("it leaves patches out.")
    side = isqrt(cells)
    grid = hidden[:, tokens - side * side :]  # [B, N, D]
    return grid.transpose(1, 2).reshape(len(grid), -1, side, side)


def build_transformers(config: TransformersConfig, pretrained: bool) -> TransformersEncoder:
    """The backbone of `config`, if `pretrained` with the weights that it names.

    Raises:
        MissingExtraError: transformers is not installed.
        BundleError: the backbone is not available, or a weight file does not fit.
        UsageError: it can't see photos of that size.
    """
    with needs("encoders", f"The encoder {config.name}"):
        import transformers
    config = _completed(config, pretrained)
    settings = _settings_of(config)
    published = pretrained and config.weights == "pretrained"
    auto: Any = transformers.AutoModel
    with quiet():
        if published:
            network, read = _from_hub(
                config.name,
                lambda where, **how: auto.from_pretrained(
                    where, config=settings, output_loading_info=True, **float32(), **how
                ),
            )
            missing = sorted(name for name in read["missing_keys"] if UNUSED.isdisjoint(name.split(".")))
            counted = [name for name in missing if name.endswith(COUNTED)]
            if counted:  # version 5 wrote the folder, and version 4 leaves these weights uninitialised
                own = auto.from_config(settings, **float32()).state_dict()
                network.load_state_dict({name: own[name] for name in counted}, strict=False)
            lacking = [name for name in missing if name not in counted]
            if lacking:
                raise BundleError(
                    f"{config.name} holds no weights called {lacking[0]}.",
                    "If a newer transformers wrote it, set encoder.weights to its model.safetensors.",
                )
        else:
            network = auto.from_config(settings, **float32())
    pooler = getattr(network, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        network.pooler = None  # unused here, and random if the checkpoint has none
    if pretrained and config.weights not in ("pretrained", "random"):
        path = Path(config.weights)
        weights = read_weights(path)
        weights = transformers_names(weights) if "conv1.weight" in weights else own_names(network, weights)
        load_weights(network, weights, path)
    return TransformersEncoder(config, network)


def _under_own_names(encoder: TransformersEncoder, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before `encoder` loads a state dict of ours: rename weights that another version of transformers has named."""
    start = f"{prefix}network."
    found = {name.removeprefix(start): weights.pop(name) for name in list(weights) if name.startswith(start)}
    if found:
        weights |= {start + name: tensor for name, tensor in own_names(encoder.network, found).items()}


def _parameter_count(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _completed(config: TransformersConfig, pretrained: bool) -> TransformersConfig:
    """`config` with its architecture and preprocessing, from the Hub if they are not known here."""
    depth = depth_of(config.name)
    own = depth is not None and (config.weights != "pretrained" or not pretrained)
    settings, preprocessing = config.architecture, config.preprocessing
    if settings is None:
        settings = architecture(depth) if own and depth is not None else _published_settings(config.name)
    if str(settings.get("model_type")).startswith("siglip2"):
        raise UsageError(
            f"{config.name} is a NaFlex model, which reads rows of patches, not square photos.",
            "Use a SigLIP 2 of one size, such as google/siglip2-base-patch16-224.",
        )
    if preprocessing is None:
        preprocessing = PREPROCESSING if own else _published_preprocessing(config.name)
    if config.size is not None:
        preprocessing = preprocessing.model_copy(update={"size": config.size})
    return config.model_copy(update={"architecture": settings, "preprocessing": preprocessing})


def _settings_of(config: TransformersConfig) -> Any:
    """transformers' own configuration object."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**without_programs(config.architecture or {}))


def _published_settings(name: str) -> dict[str, Any]:
    """The backbone's settings; for a model of images and text (CLIP, SigLIP), those of its image half."""
    from transformers import AutoConfig

    settings = _from_hub(name, AutoConfig.from_pretrained)
    return dict(getattr(settings, "vision_config", settings).to_diff_dict())


def _published_preprocessing(name: str) -> Preprocessing:
    """The backbone's `preprocessor_config.json` as our `Preprocessing`."""
    from transformers.image_processing_base import ImageProcessingMixin

    found, _ = _from_hub(name, ImageProcessingMixin.get_image_processor_dict)
    return preprocessing_of(found, name)


def preprocessing_of(found: dict[str, Any], name: str) -> Preprocessing:
    """An image processor's settings as our `Preprocessing`.

    Raises:
        BundleError: the size is not a square, or pixels are not divided by 255.
    """
    kind = str(found.get("image_processor_type", found.get("feature_extractor_type")))
    size = found.get("size", next((size for family, size in SIZES.items() if kind.startswith(family)), None))
    edge = size if isinstance(size, int) else None
    if isinstance(size, dict):
        edge = size.get("shortest_edge", size.get("height"))
    square = not isinstance(size, dict) or size.get("height") == size.get("width")
    crop = found.get("crop_size")
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if found.get("do_rescale") is False:
        raise BundleError(f"The image processor of {name} does not divide pixels by 255.")
    if not isinstance(edge, int) or not square or found.get("do_resize") is False:
        raise BundleError(
            f"The image processor of {name} does not resize photos to squares: its size is {size}.",
            "Give the encoder's preprocessing in the recipe.",
        )
    resize: Literal["crop", "squash"] = "crop"
    side, fraction = edge, 1.0
    if "crop_pct" in found or "ConvNext" in kind:
        # ConvNeXt's processor (also ResNet's) crops below 384, and squashes from there on.
        fraction, resize = (found.get("crop_pct") or 224 / 256, "crop") if edge < 384 else (1.0, "squash")
    elif isinstance(crop, int) and found.get("do_center_crop", True):
        side, fraction = crop, min(1.0, crop / edge)
    elif not isinstance(size, dict) or "height" in size:  # a single number is both height and width
        resize = "squash"
    plain, clip = found.get("do_normalize") is False, kind.startswith(CLIPS)
    return Preprocessing(
        size=side,
        resize=resize,
        crop_fraction=fraction,
        interpolation=RESAMPLING.get(found.get("resample", 3 if clip else 2), "bilinear"),
        mean=(0.0, 0.0, 0.0) if plain else tuple(found.get("image_mean") or (CLIP_MEAN if clip else (0.5, 0.5, 0.5))),
        std=(1.0, 1.0, 1.0) if plain else tuple(found.get("image_std") or (CLIP_STD if clip else (0.5, 0.5, 0.5))),
    )


def _from_hub(name: str, load: Callable[..., T]) -> T:
    """What `load` finds under a name: in a folder, in the local cache, or else on the Hub.

    Raises:
        BundleError: it is in none of them.
    """
    where = ALIASES.get(name, name)
    try:
        return load(where, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        return load(where)
    except (OSError, ValueError) as error:
        if "mobileclip" in where.lower():
            raise BundleError(
                f"The encoder {where} is not a model of transformers: MobileCLIP is in timm.", MOBILECLIP
            ) from error
        raise BundleError(
            f"The encoder {where} is not a folder of a transformers model, is not in the local Hugging Face "
            "cache, and can't be fetched from the Hub.",
            "Check the name and the connection, or use efficientnet_lite2, which needs neither.",
        ) from error
