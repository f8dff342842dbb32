"""The PyTorch engine, held to the contract of every engine, with every variant of every decoder."""

import numpy as np
import pytest
import torch

from showtell.engines.ensemble import EnsembleEngine
from showtell.engines.torch import TorchEngine
from showtell.models.captioning_model import CaptioningModel, build_model
from showtell.models.encoders import encoder_config
from showtell.search import SearchOptions, search
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.contracts.decoders import small_decoders
from tests.contracts.engine_contract import check_engine

V = 23
DECODERS = small_decoders(side=4)
# Fresh weights like all words alike, whatever they see, and a search should have to choose: which weights are
# multiplied by how much, and what is added to the logit of <end>, so that captions differ in words and length.
LOUDER = {
    "show_and_tell": ("", 6, 1),
    "show_attend_and_tell": (("embedding", "gates_from_context", "output"), 15, 1),
    "att2in": ("", 5, 0),
    "adaptive_attention": ("", 6, 1),
    "up_down": ("", 6, 1),
    "transformer": ("", 3, 3),
    "pretrained": ("", 20, 1),
}
OTHERS = ("", 6, 1)


@pytest.fixture(params=DECODERS.values(), ids=DECODERS.keys())
def model(request: pytest.FixtureRequest) -> CaptioningModel:
    torch.manual_seed(0)
    encoder = encoder_config({"name": "efficientnet_lite0", "weights": "random", "size": 64, "stages": 6})
    model = build_model(encoder, request.param, V).eval()
    parts, factor, _ = LOUDER.get(request.param.name, OTHERS)
    for name, weight in model.decoder.named_parameters():
        if weight.ndim > 1 and name.startswith(parts):
            weight.data.mul_(factor)
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, 3, 64, 64)).astype(np.float32)


WORDS = Tokenizer.train([" ".join(map(str, range(V - 4)))], TokenizerConfig(min_count=1))


def test_contract(model: CaptioningModel, images: np.ndarray) -> None:
    check_engine(TorchEngine(model), images[:4], vocabulary_size=V)


def test_contract_of_an_ensemble(model: CaptioningModel, images: np.ndarray) -> None:
    """PyTorch's tensors travel in its memory and state as NumPy's arrays do."""
    engines = [TorchEngine(model), TorchEngine(model)]
    check_engine(EnsembleEngine(engines, V), images[:3], vocabulary_size=V)


@pytest.mark.parametrize(
    "options",
    [SearchOptions(beam=1), SearchOptions(beam=5, num=5), SearchOptions(sample=True, num=3, top_p=0.9, seed=7)],
    ids=["greedy", "beam", "sample"],
)
def test_a_batch_of_16_is_one_image_at_a_time(model: CaptioningModel, options: SearchOptions) -> None:
    """Beam search over several images at once has been broken in a famous decoder for years: no test had both."""
    engine = TorchEngine(model)
    rows, columns = model.encoder.grid
    grids = np.random.default_rng(1).normal(size=(16, rows * columns, model.encoder.width)).astype(np.float32)
    (bias,) = (p for name, p in model.decoder.named_parameters() if name in ("output.bias", "output_bias"))
    bias.data[WORDS.end] += LOUDER.get(model.decoder.config.name, OTHERS)[2]
    together = search(engine, engine.memory_from_grid(grids), options, WORDS, attention=True)
    lengths = set()
    for i, hypotheses in enumerate(together):
        one = engine.memory_from_grid(grids[i : i + 1])
        alone = search(engine, one, options, WORDS, attention=True, image_numbers=[i])[0]
        assert [h.tokens for h in hypotheses] == [h.tokens for h in alone]
        for a, b in zip(hypotheses, alone, strict=True):
            assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
            assert (a.attention is None) == (b.attention is None)
            if a.attention is not None:
                np.testing.assert_allclose(a.attention, b.attention, atol=1e-4)
            lengths.add(len(a.tokens))
    assert len(lengths) > 1, "images must leave the batch at different steps"


def test_cached_features_are_live_images(model: CaptioningModel, images: np.ndarray) -> None:
    """What the cache saves is the encoder's work and nothing else."""
    engine = TorchEngine(model)
    with torch.no_grad():
        grid = model.encoder(torch.from_numpy(images)).numpy()
    live = search(engine, engine.encode(images), SearchOptions(), WORDS)
    cached = search(engine, engine.memory_from_grid(grid), SearchOptions(), WORDS)
    assert [h[0].tokens for h in live] == [h[0].tokens for h in cached]
