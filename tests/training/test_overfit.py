"""Every recipe learns eight pictures by heart: the one test that no broken loss, mask or search passes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from showtell.data import load
from showtell.engines.torch import TorchEngine
from showtell.images.decode import Pixels
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.models.decoder import DecoderConfig
from showtell.models.encoders import build_encoder
from showtell.models.transformer import TransformerConfig
from showtell.search import SearchOptions, search
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.inputs.batches import batch_of
from showtell.training.recipe import load_recipe
from showtell.training.stages.stage import parameter_groups

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SIDE, PATCH = 4, 16


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_repeats_eight_captions_word_for_word(path: Path) -> None:
    """The recipe's own decoder and first stage, but narrow, without dropout, and with a high learning rate."""
    torch.manual_seed(0)
    recipe, photos = load_recipe(path), load("shapes:8").examples
    captions = [photo.captions[0] for photo in photos]
    tokenizer = Tokenizer.train(captions, TokenizerConfig(min_count=1))
    grids = torch.stack([patches(photo.read()) for photo in photos])
    decoder = build_decoder(narrow(recipe.decoder), grids.shape[-1], len(tokenizer))
    never_asked = build_encoder({"name": "efficientnet_lite0", "weights": "random", "size": 32})
    model = CaptioningModel(never_asked, decoder)

    stage = recipe.stages[0].model_copy(update={"learning_rate": 5e-3, "label_smoothing": 0.0})
    ids = [[tokenizer.encode(caption)] for caption in captions]
    objective, batch = stage.objective(ids, tokenizer), batch_of(np.arange(8), ids)
    optimizer = torch.optim.AdamW(parameter_groups(model, stage, len(tokenizer)))
    model.train()
    for step in range(1000):
        optimizer.zero_grad()
        terms = next(objective(model, grids, batch, 0.0)).terms
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), stage.clip)
        optimizer.step()
        if terms["words"] < 0.01 and step >= 100:  # batch norm's averages need their time
            break

    engine = TorchEngine(model.eval())
    memory = engine.memory_from_grid(grids.numpy())
    for beam in (1, 3):
        found = search(engine, memory, SearchOptions(beam=beam, max_words=30), tokenizer)
        assert [tokenizer.decode(hypotheses[0].tokens) for hypotheses in found] == captions


def patches(picture: Pixels) -> Tensor:
    """A picture's pixels as the grid of its patches, `[SIDE ** 2, 3 * PATCH ** 2]`."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).float().permute(2, 0, 1) / 128 - 1
    pixels = nn.functional.adaptive_avg_pool2d(pixels, SIDE * PATCH)
    cells = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)  # [3, SIDE, SIDE, PATCH, PATCH]
    return cells.permute(1, 2, 0, 3, 4).reshape(SIDE**2, -1)


def narrow(decoder: DecoderConfig) -> DecoderConfig:
    """The decoder with small widths, which learn by heart as well."""
    if isinstance(decoder, TransformerConfig):
        sizes = {"width": 64, "heads": 4, "feed_forward_width": 64, "encoder_layers": 1, "decoder_layers": 2}
        return decoder.model_copy(update={**sizes, "dropout": 0.0, "encode_size": min(decoder.encode_size, 6)})
    sizes = {"embedding_width": 32, "hidden_width": 64, "attention_width": 32}
    nothing_dropped = {"dropout": 0.0, "feature_dropout": 0.0}
    known = {key: value for key, value in {**sizes, **nothing_dropped}.items() if key in type(decoder).model_fields}
    return decoder.model_copy(update=known)
