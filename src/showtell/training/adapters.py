"""LoRA (Hu et al. 2021, "Low-rank adaptation of large language models"), by `peft`: a matrix W becomes W + 2 B A.

A has few rows and B few columns (the rank), and only they learn: the optimiser needs little memory, and few photos can
spoil little. B begins at 0, so nothing changes at first. The sum is validated and saved, under W's own name: search,
export and later stages know nothing about adapters.
"""

from copy import deepcopy

from torch import nn

from showtell.errors import UsageError, needs
from showtell.models.captioning_model import CaptioningModel
from showtell.models.decoder import Decoder
from showtell.models.transformer import DecoderLayer

SCALE = 2  # of B A, whatever the rank


def last_layers(decoder: Decoder, number: int | None) -> list[tuple[str, DecoderLayer]]:
    """The decoder's last layers with their names; all of them without a number.

    Raises:
        UsageError: there are fewer layers.
    """
    layers = [(name, module) for name, module in decoder.named_modules() if isinstance(module, DecoderLayer)]
    if (number or 0) > len(layers):
        raise UsageError(
            f"The decoder has {len(layers)} layers, so the last {number} of them can't be trained.",
            f"Set decoder_layers to {len(layers)} or less." if layers else "Leave decoder_layers out.",
        )
    return layers[-(number or 0) :]


def check_installed() -> None:
    """Raise MissingExtraError if peft is missing."""
    with needs("lora", "LoRA"):
        import peft  # noqa: F401


def adapted(model: CaptioningModel, rank: int, layers: int | None) -> CaptioningModel:
    """A model that shares all weights with this one, which are frozen now, and has its own adapters besides.

    Args:
        model: a model with a `layered` decoder.
        rank: the rank of the adapters.
        layers: how many of the last layers get them; all if None.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = [
        f"decoder.{name}.{part}"
        for name, layer in last_layers(model.decoder, layers)
        for part, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    shared = {id(tensor): tensor for tensor in (*model.decoder.parameters(), *model.decoder.buffers())}
    tuned = CaptioningModel(model.encoder, deepcopy(model.decoder, shared))  # the modules, not their tensors
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=names), tuned)
    return tuned


def merged(model: CaptioningModel) -> CaptioningModel:
    """A copy of an adapted model with plain weights, including the adapters' products; the encoder is shared."""
    from peft.tuners.lora import LoraLayer

    decoder = deepcopy(model.decoder)
    for name, module in list(decoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            decoder.set_submodule(name, module.get_base_layer())
    return CaptioningModel(model.encoder, decoder)
