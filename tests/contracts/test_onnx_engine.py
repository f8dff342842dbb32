"""The ONNX Runtime engine, held to the contract of every engine, and word for word to PyTorch's captions."""

import numpy as np
import pytest
import torch

from showtell.engines.onnx import OnnxEngine
from showtell.engines.torch import TorchEngine
from showtell.errors import UsageError
from showtell.export import ENCODER, decoder_graphs, encoder_graph
from showtell.models.captioning_model import build_model
from showtell.models.encoders import encoder_config
from showtell.models.transformer import TransformerConfig
from showtell.onnx_weights import files_of
from showtell.search import SearchOptions, search
from tests.contracts.engine_contract import check_engine, first_tokens
from tests.contracts.test_torch_engine import DECODERS, LOUDER, TRANSFORMER, V, Words

SMALL_ENCODER = encoder_config({"name": "efficientnet_lite0", "weights": "random", "size": 64, "stages": 6})
EXPORTED = {**DECODERS, "transformer, learned": TransformerConfig(**TRANSFORMER, encode_size=4, positions="learned")}
SEARCHES = {
    "greedy": SearchOptions(beam=1),
    "beam": SearchOptions(beam=5, num=5),
    "sample": SearchOptions(sample=True, num=3, top_p=0.9, seed=7),
}


@pytest.fixture(scope="module")
def encoder():
    """The encoder that the models of this file share, and its graph: exporting takes seconds."""
    torch.manual_seed(0)
    encoder = build_model(SMALL_ENCODER, DECODERS["show_and_tell"], V).eval().encoder
    return encoder, encoder_graph(encoder).SerializeToString()


@pytest.fixture(scope="module", params=EXPORTED.values(), ids=EXPORTED.keys())
def engines(request, encoder, tmp_path_factory) -> tuple[TorchEngine, OnnxEngine]:
    """A model whose captions differ from image to image, in PyTorch and in ONNX Runtime."""
    torch.manual_seed(0)
    model = build_model(SMALL_ENCODER, request.param, V).eval().requires_grad_(False)
    model.encoder, encoder_onnx = encoder
    parts, factor, louder_end = LOUDER[request.param.name]
    if getattr(request.param, "positions", "") == "learned":
        louder_end += 3  # these weights never end a caption else
    for name, weight in model.decoder.named_parameters():
        if weight.ndim > 1 and name.startswith(parts):
            weight.mul_(factor)
        if name in ("output.bias", "output_bias"):
            weight[Words.end] += louder_end
    folder = tmp_path_factory.mktemp("exported")
    files = files_of(decoder_graphs(model.decoder, model.encoder.grid, model.encoder.width)) | {ENCODER: encoder_onnx}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return TorchEngine(model), OnnxEngine(folder, threads=1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, 3, 64, 64)).astype(np.float32)


def test_contract(engines, images):
    check_engine(engines[1], images[:4], vocabulary_size=V)


def test_captions_are_pytorchs_word_for_word(engines, images):
    """Sixteen images at once, which leave the batch at different steps, in each kind of search."""
    encoder = engines[0].model.encoder
    rows, columns = encoder.grid
    grids = np.random.default_rng(1).normal(size=(16, rows * columns, encoder.width)).astype(np.float32)
    lengths = set()
    for kind, options in SEARCHES.items():
        expected, found = (
            search(engine, engine.memory_of(grids), options, Words(), attention=True) for engine in engines
        )
        for ours, theirs in zip(found, expected, strict=True):
            assert [h.tokens for h in ours] == [h.tokens for h in theirs], kind
            for a, b in zip(ours, theirs, strict=True):
                assert a.log_prob == pytest.approx(b.log_prob, rel=1e-5, abs=1e-4)
                assert (a.attention is None) == (b.attention is None)
                if a.attention is not None:
                    np.testing.assert_allclose(a.attention, b.attention, atol=1e-4)
                lengths.add(len(a.tokens))
    assert len(lengths) > 1


def test_the_encoder_is_pytorchs(engines, images):
    grid = engines[1].features(images)
    with torch.no_grad():
        np.testing.assert_allclose(grid, engines[0].model.encoder(torch.from_numpy(images)).numpy(), atol=1e-4)


def test_only_learned_positions_have_an_end(engines, images):
    """ONNX Runtime's own words for it are an index out of bounds in a node."""
    torch_engine, engine = engines

    def say_65_words() -> None:
        memory = engine.memory_of(engine.features(images[:1]))
        state = engine.start(memory)
        for _ in range(65):
            _, state = engine.step(memory, state, first_tokens(1), None, 1)

    if getattr(torch_engine.model.decoder.config, "positions", None) != "learned":
        say_65_words()
    else:
        with pytest.raises(UsageError, match=r"positions for captions of 64 words and no more\. Lower max_words"):
            say_65_words()
