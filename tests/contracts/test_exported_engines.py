"""ONNX Runtime and OpenVINO, held to the contract of every engine, and word for word to PyTorch's captions."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from showtell.bundle import ONNX_WEIGHTS, TRAINABLE
from showtell.engines.exported import ExportedEngine
from showtell.engines.onnx import OnnxEngine
from showtell.engines.openvino import OpenVinoEngine
from showtell.engines.torch import TorchEngine
from showtell.errors import UsageError
from showtell.export.graphs import ENCODER, compare, decoder_graphs, encoder_graph
from showtell.export.int8 import int8_convolutions, int8_products
from showtell.export.trainable import melted, trainable_file
from showtell.export.weights import files_of
from showtell.exported_weights import read_exported_weights
from showtell.models.captioning_model import build_model
from showtell.models.encoders import encoder_config, folded
from showtell.search import SearchOptions, search
from tests.contracts.engine_contract import by_word, check_engine, first_tokens, words
from tests.contracts.test_torch_engine import DECODERS, LOUDER, OTHERS, WORDS, V

SMALL_ENCODER = encoder_config({"name": "efficientnet_lite0", "weights": "random", "size": 64, "stages": 6})
INT8_TOLERANCE = 0.2  # of log-probabilities: a value close to one half may be rounded either way
BFLOAT16_TOLERANCE = 0.2  # as above
SEARCHES = {
    "greedy": SearchOptions(beam=1),
    "beam": SearchOptions(beam=5, num=5),
    "sample": SearchOptions(sample=True, num=3, top_p=0.9, seed=7),
}


@pytest.fixture(scope="module")
def encoder():
    """The encoder that the models of this file share, and its graphs: exporting takes seconds."""
    torch.manual_seed(0)
    encoder = build_model(SMALL_ENCODER, DECODERS["show_and_tell"], V).eval().encoder
    graph = encoder_graph(encoder)
    photos = np.random.default_rng(2).normal(size=(8, 3, 64, 64)).astype(np.float32)
    return encoder, graph, int8_convolutions(graph, photos)


@pytest.fixture(scope="module", params=DECODERS.values(), ids=DECODERS.keys())
def model_and_graphs(request, encoder):
    """A model whose captions differ from image to image, and the graphs of its decoder."""
    torch.manual_seed(0)
    model = build_model(SMALL_ENCODER, request.param, V).eval().requires_grad_(False)
    model.encoder = encoder[0]
    parts, factor, louder_end = LOUDER.get(request.param.name, OTHERS)
    if model.decoder.max_words is not None:
        louder_end += 3  # these weights never end a caption else
    for name, weight in model.decoder.named_parameters():
        if weight.ndim > 1 and name.startswith(parts):
            weight.mul_(factor)
        if name in ("output.bias", "output_bias"):
            weight[WORDS.end] += louder_end
    return model, decoder_graphs(model.decoder, model.encoder.cells, model.encoder.width)


def onnx_runtime(folder) -> ExportedEngine:
    return OnnxEngine(folder, threads=1)


def openvino(folder) -> ExportedEngine:
    return OpenVinoEngine(folder, threads=1, precision="float32")


def in_bfloat16(folder) -> ExportedEngine:
    return OpenVinoEngine(folder, threads=1, precision="bfloat16")


def written(graphs, folder):
    for name, content in files_of(graphs).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOWTELL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(model_and_graphs, encoder, tmp_path_factory):
    """The exported model."""
    return written({ENCODER: encoder[1], **model_and_graphs[1]}, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module", params=[onnx_runtime, openvino], ids=["onnx", "openvino"])
def engines(request, model_and_graphs, folder) -> tuple[TorchEngine, ExportedEngine]:
    """The model in PyTorch, and exported."""
    return TorchEngine(model_and_graphs[0]), request.param(folder)


@pytest.fixture(scope="module")
def int8_folder(model_and_graphs, encoder, tmp_path_factory):
    """The exported model with int8 arithmetic."""
    graphs = {name: int8_products(graph) for name, graph in model_and_graphs[1].items()}
    return written({ENCODER: encoder[2], **graphs}, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def folded_graph(encoder):
    """As `showtell export` writes it."""
    return encoder_graph(folded(encoder[0]))


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_pytorch_has_its_weights_again(model_and_graphs, folded_graph, weights, images, tmp_path):
    """Whatever the exporter made of them; rounded, it says what the exported model says."""
    model, graphs = model_and_graphs
    graphs = {ENCODER: folded_graph, **graphs}
    files = files_of(graphs, weights)
    for name, content in {**files, TRAINABLE: trainable_file(model, graphs, files)}.items():
        (tmp_path / name).write_bytes(content)
    found = read_exported_weights(tmp_path / TRAINABLE, tmp_path / ONNX_WEIGHTS)
    assert {name: array.shape for name, array in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    if weights == "float32":
        for name, tensor in melted(model).state_dict().items():
            np.testing.assert_array_equal(found[name], tensor.numpy())
    again = deepcopy(model)
    again.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})
    differences = compare(TorchEngine(again), OnnxEngine(tmp_path, threads=1), V, images[:4])
    assert differences.grid < 1e-5
    assert differences.log_probs < 2e-3  # hard attention may choose another of two cells that are nearly equal


def test_contract(engines, images):
    check_engine(engines[1], images[:4], vocabulary_size=V)


def test_contract_in_int8(int8_folder, images):
    """What differs by 1e-7 in float32 may be rounded to another integer here; weights this loud show it the more."""
    check_engine(onnx_runtime(int8_folder), images[:4], vocabulary_size=V, tolerance=INT8_TOLERANCE)


def test_contract_in_bfloat16(folder, images):
    """Words' log-probabilities are normalised in float32, and an image's do not depend on the others."""
    engine = in_bfloat16(folder)
    check_engine(engine, images[:4], vocabulary_size=V, tolerance=BFLOAT16_TOLERANCE, attention_tolerance=0.01)


def test_captions_are_pytorchs_word_for_word(engines, images):
    """Sixteen images at once, which leave the batch at different steps, in each kind of search."""
    encoder = engines[0].model.encoder
    rows, columns = encoder.grid
    grids = np.random.default_rng(1).normal(size=(16, rows * columns, encoder.width)).astype(np.float32)
    lengths = set()
    for kind, options in SEARCHES.items():
        expected, found = (
            search(engine, engine.memory_from_grid(grids), options, WORDS, attention=True) for engine in engines
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


def test_long_captions_are_pytorchs(engines):
    """OpenVINO's fused kernels computed something else when a transformer's state had 16 words."""
    encoder = engines[0].model.encoder
    grids = np.random.default_rng(1).normal(size=(3, encoder.grid[0] * encoder.grid[1], encoder.width))
    random = np.random.default_rng(2)
    memories = [engine.memory_from_grid(grids.astype(np.float32)) for engine in engines]
    states = [engine.start(memory) for engine, memory in zip(engines, memories, strict=True)]
    tokens, parents = first_tokens(3), None
    for _ in range(24):
        steps = [
            engine.step(memory, state, tokens, parents, V)
            for engine, memory, state in zip(engines, memories, states, strict=True)
        ]
        expected, found = (by_word(proposals) for proposals, _ in steps)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        states = [state for _, state in steps]
        parents = random.integers(0, tokens.shape[1], (3, 2))
        tokens = words(random, V, 3, 2)


def test_the_encoder_is_pytorchs(engines, images):
    grid = engines[1].features(images)
    with torch.no_grad():
        np.testing.assert_allclose(grid, engines[0].model.encoder(torch.from_numpy(images)).numpy(), atol=1e-4)


def test_only_learned_positions_have_an_end(engines, images):
    """The engines' own words for it are an index out of bounds in a node."""
    torch_engine, engine = engines

    def say_65_words() -> None:
        memory = engine.memory_from_grid(engine.features(images[:1]))
        state = engine.start(memory)
        for _ in range(65):
            _, state = engine.step(memory, state, first_tokens(1), None, 1)

    most = torch_engine.model.decoder.max_words
    if most is None:
        say_65_words()
    else:
        with pytest.raises(UsageError, match=rf"positions for captions of at most {most} words\. Lower max_words"):
            say_65_words()
