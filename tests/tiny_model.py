"""A trained model of random weights, small enough to export in a test."""

from pathlib import Path

import torch

from showtell.bundle import BundleConfig, save_bundle
from showtell.models.captioning_model import build_model
from showtell.models.encoders import encoder_config
from showtell.models.show_and_tell import ShowAndTellConfig
from showtell.models.show_attend_and_tell import ShowAttendAndTellConfig
from showtell.search.options import SearchOptions
from tests.fake_model import fake_tokenizer


def save_tiny_model(folder: Path, *, attention: bool = False) -> Path:
    """Write one: Show and Tell, or Show, Attend and Tell."""
    torch.manual_seed(0)
    encoder = encoder_config({"name": "efficientnet_lite0", "weights": "random", "size": 64, "stages": 6})
    widths = {"embedding_width": 24, "hidden_width": 32}
    decoder = ShowAttendAndTellConfig(**widths, attention_width=16) if attention else ShowAndTellConfig(**widths)
    tokenizer = fake_tokenizer()
    model = build_model(encoder, decoder, len(tokenizer)).eval()
    config = BundleConfig(
        name="tiny",
        preprocessing=model.encoder.preprocessing,
        encoder=encoder.model_dump(mode="json"),
        decoder=decoder.model_dump(mode="json"),
        grid=model.encoder.grid,
        search=SearchOptions(max_words=8),
        training={"recipe": "tiny", "images": 4},
    )
    save_bundle(folder, config, tokenizer, {name: w.numpy() for name, w in model.state_dict().items()}, "# tiny")
    return folder
