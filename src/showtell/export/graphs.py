"""From a trained model to ONNX graphs that caption without PyTorch, compared with PyTorch before they are saved.

There are three graphs, because ONNX Runtime always runs a whole graph, and they run at three different moments:

    encoder.onnx        once per image: images -> grid
    decoder_start.onnx  once per image: grid, live or cached -> memory and the state before the first word
    decoder_step.onnx   once per word: memory, state, last words, parents -> the best next words, the next state

Their weights are stored together, in weights.bin (see `weights.py`). A step first gathers its parents' rows, and
returns only the best words, not the whole vocabulary.

Letters as in `search/engine.py`: B images, K hypotheses of an image, V words, N cells, D their width.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from showtell.bundle import (
    DECODER_START,
    DECODER_STEP,
    ENCODER,
    TRAINABLE,
    Bundle,
    check_replaceable,
    save_bundle,
)
from showtell.engines.onnx import OnnxEngine
from showtell.engines.torch import TorchEngine, model_of
from showtell.errors import UsageError, needs
from showtell.export.int8 import int8_graphs
from showtell.export.trainable import trainable_file
from showtell.export.weights import Weights, files_of
from showtell.export.weights import replace as replace_all
from showtell.models.captioning_model import CaptioningModel
from showtell.models.decoder import Arrays, Decoder
from showtell.models.encoders import Encoder
from showtell.search.engine import Proposals

OPSET = 20  # ONNX Runtime 1.18 and later; the first with Gelu
TOLERANCE = 1e-3
MOST_MOVED = 0.25  # share of the next word's probability that int8 arithmetic may move
COMPARED = 16  # photos, from those on which int8 scales are measured
EXAMPLE_IMAGES, EXAMPLE_ROWS, EXAMPLE_HYPOTHESES, EXAMPLE_WORDS = 2, 3, 5, 4  # none is 0 or 1, and no two are equal


@dataclass(frozen=True)
class Differences:
    """The differences between ONNX Runtime and PyTorch: the largest ones, unless stated otherwise."""

    grid: float
    """In the encoder's features, as a share of the largest one."""
    log_probs: float
    """In words' log-probabilities, over the whole vocabulary; includes the effect of different features."""
    attention: float
    """In attention; 0 for a model without attention."""
    moved: float = 0.0
    """How much of the next word's probability moves to other words, on average: 0 none, 1 all of it."""
    rounding: float = 0.0
    """In words' log-probabilities after rounding weights, or what they multiply; 0 without rounding."""
    int8: float | None = None
    """`moved` on photos only, with products computed in int8; None without int8."""

    @property
    def largest(self) -> float:
        """The largest difference without rounding; NaN if any is NaN."""
        return float(np.max([self.grid, self.log_probs, self.attention]))


class StartGraph(nn.Module):
    """What a decoder does with an image before the first word: grid `[B, N, D]` -> arrays of memory and state."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, grid: Tensor) -> tuple[Tensor, ...]:
        """See `Decoder.memory` and `Decoder.start`."""
        memory = self.decoder.memory(grid)
        return (*memory.values(), *self.decoder.start(memory).values())


class StepGraph(nn.Module):
    """`TorchEngine.step`, as one graph; memory and state are the arrays of these names."""

    def __init__(self, decoder: Decoder, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.decoder = decoder
        self.memory, self.state = memory, state

    def forward(
        self, memory: list[Tensor], state: list[Tensor], tokens: Tensor, parents: Tensor, top: Tensor
    ) -> tuple[Tensor, ...]:
        """Ids and log-probabilities `[B, K, top]`, attention `[B, K, N]` if any, and the arrays of the next state."""
        images = torch.arange(parents.shape[0])[:, None]
        rows = {name: array[images, parents] for name, array in zip(self.state, state, strict=True)}
        logits, attention, new = self.decoder.step(dict(zip(self.memory, memory, strict=True)), rows, tokens)
        log_probs, ids = logits.log_softmax(-1).topk(top.item(), dim=-1)  # type: ignore[arg-type]  # it is int64
        return (ids, log_probs, *([] if attention is None else [attention]), *(new[name] for name in self.state))


def export(
    bundle: Bundle,
    out: Path,
    images: NDArray[np.float32] | None = None,
    weights: Weights = "float32",
    calibration: NDArray[np.float32] | None = None,
) -> Differences:
    """Write a model folder that captions without PyTorch.

    Args:
        bundle: the trained model.
        out: the new folder.
        images: real images `[B, 3, S, S]` from `images.prepare`, to compare on besides random ones.
        weights: how weights are stored that int8 arithmetic has not already made int8.
        calibration: photos, as `images`; if given, large products are computed in int8, with scales measured on them.

    Raises:
        UsageError: `out` holds a trained model or other files, the model can't be exported, or its captions differ.
        MissingExtraError: onnx or onnxscript is not installed.
        BundleError: the folder can't be written.
    """
    check_replaceable(out)
    if bundle.is_exported:
        raise UsageError(f"{bundle.path} is exported already.", "Give the folder that 'showtell train' wrote.")
    engine = TorchEngine.from_bundle(bundle)
    images = some_images(engine.model, images)

    def differences_of(files: Mapping[str, bytes], images: NDArray[np.float32]) -> Differences:
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            return compare(engine, OnnxEngine(Path(folder)), len(bundle.tokenizer), images)

    graphs = graphs_of(engine.model)
    files = files_of(graphs)
    differences = differences_of(files, images)
    if not differences.largest <= TOLERANCE:  # also refuses NaN
        raise UsageError(
            f"The exported {bundle.path} differs from PyTorch by {differences.largest:.2g}, more than {TOLERANCE:g}; "
            "nothing is written."
        )
    card = bundle.card()
    if calibration is not None:
        with quiet():
            files = files_of(int8_graphs(graphs, calibration), weights)
        # The scales were not measured for random images.
        rounded = differences_of(files, calibration[:COMPARED])
        if not rounded.moved <= MOST_MOVED:
            raise UsageError(
                f"Int8 arithmetic moves {rounded.moved:.0%} of the next word's probability to other words, "
                f"more than {MOST_MOVED:.0%}; nothing is written.",
                "Export without --int8; --weights int8 makes the file as small, and computes in float32.",
            )
        differences = replace(differences, rounding=rounded.log_probs, int8=rounded.moved)
    elif weights != "float32":
        files = files_of(graphs, weights)
        differences = replace(differences, rounding=differences_of(files, images).log_probs)
    if weights != "float32" or calibration is not None:
        card = f"{card.rstrip()}\n\n{rounding_note(weights, differences)}"
    if calibration is None:  # int8 arithmetic changes biases, too
        files[TRAINABLE] = trainable_file(model_of(bundle), graphs, files)
    save_bundle(out, bundle.config, bundle.tokenizer, {}, card, files)
    return differences


def rounding_note(weights: Weights, differences: Differences) -> str:
    """The model card's note on a model whose weights or products are rounded."""
    if differences.int8 is None:
        facts = (
            f"The weights are stored in {weights}, which moves log-probabilities by up to {differences.rounding:.2g}; "
            "computing is in float32."
        )
    else:
        facts = (
            "Convolutions and matrix products are computed in int8, "
            f"which moves {differences.int8:.1%} of the next word's probability to other words."
        )
        if weights != "float32":
            facts += f" Other weights are stored in {weights}."
    return f"## Exported\n\n{facts}\nScores above are from before the rounding.\n"


# -------------------------------------------------------------------- graphs


def graphs_of(model: CaptioningModel) -> dict[str, Any]:
    """The ONNX models of a model that is ready for inference, by file name.

    Raises:
        UsageError: something in the model has no counterpart in ONNX.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    encoder = model.encoder
    return {ENCODER: encoder_graph(encoder), **decoder_graphs(model.decoder, encoder.cells, encoder.width)}


def encoder_graph(encoder: Encoder) -> Any:
    """The ONNX model of an encoder: images `[B, 3, S, S]` -> grid `[B, N, D]`."""
    size = encoder.preprocessing.size
    return onnx_model(encoder, {"images": torch.randn(EXAMPLE_IMAGES, 3, size, size)}, ({0: "batch"},), ["grid"])


def decoder_graphs(decoder: Decoder, cells: int, feature_width: int) -> dict[str, Any]:
    """The ONNX models of a decoder, by file name, for grids `[B, N, D]` with N cells and D features."""
    grid = torch.randn(EXAMPLE_IMAGES, cells, feature_width)
    with torch.no_grad():
        memory = decoder.memory(grid)
        first = decoder.start(memory)
        state: Arrays = {name: array.expand(-1, EXAMPLE_ROWS, *array.shape[2:]) for name, array in first.items()}
        for _ in range(EXAMPLE_WORDS):
            _, attention, state = decoder.step(memory, state, torch.zeros(EXAMPLE_IMAGES, EXAMPLE_ROWS).long())
    grows = [axis for array in first.values() for axis, size in enumerate(array.shape) if size == 0]
    rows = {0: "batch", 1: "rows", **dict.fromkeys(grows, "words")}
    tokens = torch.zeros(EXAMPLE_IMAGES, EXAMPLE_HYPOTHESES).long()
    start = onnx_model(
        StartGraph(decoder),
        {"grid": grid},
        ({0: "batch"},),
        [*(f"memory.{name}" for name in memory), *(f"state.{name}" for name in first)],
    )
    step = onnx_model(
        StepGraph(decoder, list(memory), list(state)),
        {
            # Contiguous, as from ONNX Runtime: the strides of a view would be inputs, too.
            "memory": {f"memory.{name}": array.contiguous() for name, array in memory.items()},
            "state": {f"state.{name}": array.contiguous() for name, array in state.items()},
            "tokens": tokens,
            "parents": tokens.clone(),  # the exporter would take the same tensor twice for a single input
            "top": torch.tensor(3),
        },
        ([{0: "batch"}] * len(memory), [rows] * len(state), *[{0: "batch", 1: "hypotheses"}] * 2, None),
        ["ids", "log_probs", *([] if attention is None else ["attention"]), *(f"next.{name}" for name in state)],
    )
    if decoder.max_words is not None:
        entry = step.metadata_props.add()
        entry.key, entry.value = "max_positions", str(decoder.max_words)
    return {DECODER_START: start, DECODER_STEP: step}


def onnx_model(module: nn.Module, inputs: dict[str, Any], dynamic: tuple[Any, ...], outputs: list[str]) -> Any:
    """The ONNX model of a module.

    Args:
        module: the module.
        inputs: example inputs by name; the module gets a dict of examples as a list.
        dynamic: for each input the axes whose size may change, and the name of the size.
        outputs: the names of the outputs.
    """
    with needs("train,export", "showtell export"):
        import onnxscript  # noqa: F401  # the exporter imports it, but reports less clearly that it is missing
    names = [name for key, value in inputs.items() for name in (value if isinstance(value, dict) else [key])]
    examples = tuple(list(value.values()) if isinstance(value, dict) else value for value in inputs.values())
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(),
                examples,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise UsageError(
                f"{type(module).__name__} can't be exported: {str(cause).splitlines()[0]}",
                "Caption with PyTorch: give the trained model.",
            ) from error
    assert program is not None
    return with_columns(without_origins(with_outputs(program.model_proto, outputs)))


def with_outputs(model: Any, names: list[str]) -> Any:
    """The same ONNX model with these output names: PyTorch before 2.10 mixes up the names of equal outputs."""
    from onnx import helper

    graph = model.graph
    if [value.name for value in graph.output] != names:
        given = {value.name for value in graph.input}
        inner = {value.name: f"{value.name}.computed" for value in graph.output if value.name not in given}
        for node in graph.node:
            node.input[:] = [inner.get(name, name) for name in node.input]
            node.output[:] = [inner.get(name, name) for name in node.output]
        for value in (*graph.initializer, *graph.value_info):
            value.name = inner.get(value.name, value.name)
        for value, name in zip(graph.output, names, strict=True):
            graph.node.append(helper.make_node("Identity", [inner.get(value.name, value.name)], [name], name=name))
            value.name = name
    return model


def without_origins(model: Any) -> Any:
    """The model without the source lines of its parts: a published model should not name its maker's folders."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for part in (*nodes, *model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def with_columns(model: Any) -> Any:
    """The same ONNX model, with products by a vector as products by a matrix of one column.

    ONNX Runtime is faster at those: attention scores took a third of a step.
    """
    from onnx import helper, numpy_helper

    vectors = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 1}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in vectors:
            nodes.append(node)
            continue
        (rows, vector), out = node.input, node.output[0]
        column, axis, scores = (f"{out}.{part}" for part in ("column", "axis", "scores"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), axis))
        nodes += [
            # The vector is stored as it is, as only matrices are stored in fewer bits; ONNX Runtime reshapes it once.
            helper.make_node("Unsqueeze", [vector, axis], [column], name=column),
            helper.make_node("MatMul", [rows, column], [scores], name=scores),
            helper.make_node("Squeeze", [scores, axis], [out], name=out),
        ]
    replace_all(model.graph.node, nodes)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of PyTorch and ONNX Runtime about missing packages and their own code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


# -------------------------------------------------------------------- comparison


def some_images(model: CaptioningModel, images: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Random images, and the real images if there are any."""
    size = model.encoder.preprocessing.size
    random = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    return random if images is None else np.concatenate([random, images])


def compare(theirs: TorchEngine, ours: OnnxEngine, vocabulary: int, images: NDArray[np.float32]) -> Differences:
    """Both engines side by side on images `[B, 3, S, S]`: the encoder, then steps with random words and parents."""
    random = np.random.default_rng(0)
    with torch.inference_mode():
        grid = theirs.model.encoder(torch.from_numpy(images)).float().numpy()
    features = ours.features(images)
    their_memory, our_memory = theirs.memory_from_grid(grid), ours.memory_from_grid(features)
    their_state, our_state = theirs.start(their_memory), ours.start(our_memory)
    log_probs, attention, moved = [0.0], [0.0], []
    tokens, parents = np.ones((len(images), 1), np.int64), None
    for hypotheses in (3, 5, 5, 2, 4, 1, 3):
        expected, their_state = theirs.step(their_memory, their_state, tokens, parents, vocabulary)
        found, our_state = ours.step(our_memory, our_state, tokens, parents, vocabulary)
        log_probs.append(largest(by_word(found) - by_word(expected)))
        moved.append(float(np.abs(np.exp(by_word(found)) - np.exp(by_word(expected))).sum(axis=2).mean()) / 2)
        if expected.attention is not None and found.attention is not None:
            attention.append(largest(found.attention - expected.attention))
        parents = random.integers(0, tokens.shape[1], size=(len(images), hypotheses))
        tokens = random.integers(0, vocabulary, size=(len(images), hypotheses))
    of_grid = largest(features - grid) / largest(grid)
    return Differences(of_grid, float(np.max(log_probs)), float(np.max(attention)), float(np.mean(moved)))


def largest(array: NDArray[np.floating[Any]]) -> float:
    """The largest absolute value; NaN if there is any."""
    return float(np.abs(array).max())


def by_word(proposals: Proposals) -> NDArray[np.float32]:
    """Log-probabilities `[B, K, V]` in the vocabulary's order, from proposals of the whole vocabulary."""
    log_probs = np.empty_like(proposals.log_probs)
    np.put_along_axis(log_probs, proposals.ids, proposals.log_probs, axis=2)
    return log_probs
