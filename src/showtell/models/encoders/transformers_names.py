"""Weights of a transformers network under the names of the installed version of transformers.

Version 5 renamed the weights of ViT, DINOv2, Swin, CLIP and others. Files on the Hub keep the old names, and version 5
renames them when it reads them; a state dict that PyTorch saves, or a model of ours, has the names of its version.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What a whole model has besides the backbone.
HEADS = (
    "pooler",
    "classifier",
    "cls_classifier",
    "distillation_classifier",
    "lm_head",
    "text_model",
    "text_projection",
    "visual_projection",
    "logit_scale",
    "logit_bias",
)
# Counted, not learned: some versions keep it among the weights.
COUNTED = "relative_position_index"
# Version 4's names -> version 5's, for version 4, which doesn't know them.
RENAMED = (
    (r"\.attention\.(?:attention|self)\.(q|k|v)(?:uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.attention\.relative_position_bias\.", ".relative_position_bias."),
    (
        r"\.attention\.self\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
# The same for DINOv2 giant's SwiGLU, where version 4 has two matrices in one.
JOINED = {"weights_in": ("gate_proj", "up_proj"), "weights_out": ("down_proj",)}


def own_names(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of version 4 or 5, or from a file on the Hub, under `network`'s own names.

    Heads and the text half are left out. What `network` lacks, or has in another shape, stays: loading reports it.

    Args:
        network: a backbone of transformers.
        weights: names -> tensors; they are not changed.
    """
    own = network.state_dict()
    if weights.keys() == own.keys():
        return weights
    backbone: Any = type(network)
    with quiet():
        try:
            read, info = backbone.from_pretrained(
                None,
                config=network.config,
                state_dict=names_for_version_4(own, weights) if version_of_transformers() < 5 else dict(weights),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **float32(),
            )
        except RuntimeError:  # weights that can't even be converted
            return weights
    other = {name: torch.empty(shape, device="meta") for name, shape, _ in info["mismatched_keys"]}
    other |= {name: weights.get(name, torch.empty(0)) for name in info["unexpected_keys"]}
    other = {name: tensor for name, tensor in other.items() if name.split(".")[0] not in HEADS}
    counted = {name: tensor for name, tensor in own.items() if name.endswith(COUNTED)}
    missing = {*info["missing_keys"], *other}
    return (
        {name: tensor for name, tensor in read.state_dict().items() if name in own.keys() - missing} | counted | other
    )


def version_of_transformers() -> int:
    """The first number of transformers' installed version."""
    import transformers

    return int(transformers.__version__.split(".")[0])


def float32() -> dict[str, torch.dtype]:
    """The setting with which transformers reads weights in float32, however they are stored."""
    return {"dtype" if version_of_transformers() >= 5 else "torch_dtype": torch.float32}


def without_programs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A transformers config without entries that load code: classes and attention kernels from a repository."""
    return {
        key: without_programs(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key != "auto_map" and not key.endswith("_implementation")
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Silence reports on the weights of the classifier and the text half, which are left out on purpose."""
    from transformers.utils import logging as untyped

    logging: Any = untyped

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def names_for_version_4(own: Iterable[str], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Version 5's state dict under version 4's names, if `own` has them."""
    found = dict(weights)
    for name in own:
        newer = name
        for old, new in RENAMED:
            newer = re.sub(old, new, newer)
        one = [[newer], [re.sub(r"^encoder\.layer\.", "layers.", newer)], [f"model.{name}"]]
        joined = [[name.replace(old, part) for part in parts] for old, parts in JOINED.items() if old in name]
        for names in [*one, [name.removeprefix("vision_model.")], *joined]:
            if name not in found and all(there in found for there in names):
                found[name] = torch.cat([found.pop(there) for there in names])
    return found
