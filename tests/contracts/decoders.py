"""Every decoder of the table, small, and variants of them: what is registered is tested."""

from typing import Any

from showtell.models.captioning_model import DECODERS, config_class
from showtell.models.decoder import DecoderConfig

SIZES = {
    "embedding_width": 12,
    "hidden_width": 16,
    "attention_width": 8,
    "width": 16,
    "heads": 2,
    "feed_forward_width": 12,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "layers": 2,
    "max_positions": 32,
}


def small(name: str, **options: Any) -> DecoderConfig:
    """A decoder's config, with small sizes where it has fields of these names."""
    config = config_class(name)
    sizes = {field: size for field, size in SIZES.items() if field in config.model_fields}
    return config(**{"name": name, **sizes, **options})


def small_decoders(side: int) -> dict[str, DecoderConfig]:
    """All decoders for a grid of `side ** 2` cells, by what they are called in a test's name."""
    return {name: small(name) for name in DECODERS} | {
        "show_and_tell, 2 layers": small("show_and_tell", layers=2),
        "show_attend_and_tell, hard": small("show_attend_and_tell", attention="hard"),
        "show_attend_and_tell, plain": small(
            "show_attend_and_tell", initial_state="zeros", gate=False, output="hidden", normalise=True
        ),
        "transformer": small("transformer", encode_size=side),
        "transformer, resized": small("transformer", encode_size=side + 1),
        "transformer, modern": small(
            "transformer", encode_size=side, norm="pre", activation="gelu", positions="rotary"
        ),
        "transformer, learned positions": small("transformer", encode_size=side, positions="learned"),
        "pretrained, GPT-2": small("pretrained", norm="pre", projection="linear", last_norm=True),
        "pretrained, GIT": small(
            "pretrained", image="prefix", projection="linear_norm", embedding_norm=True, tied=False
        ),
        "pretrained, BLIP-2": small(
            "pretrained",
            image="prefix",
            norm="pre",
            prefix_causal=True,
            prefix_positions=side**2,
            projection="linear",
            last_norm=True,
            before_grid=None,
        ),
    }
