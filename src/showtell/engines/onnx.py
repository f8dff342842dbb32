"""Search's one question, answered by ONNX Runtime: captions without PyTorch.

The graphs are written by `export.py`. Their inputs and outputs are named by what they are: "memory.NAME",
"state.NAME" and, for the state after a step, "next.NAME". In this engine the arrays of memory and state keep
those names, so a step feeds the graph what it was given. Memory also carries the first state, which the
graph that makes it knows already.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from showtell.bundle import DECODER_START, DECODER_STEP, ENCODER, Bundle
from showtell.errors import BundleError, UsageError
from showtell.search.engine import Proposals, select

ENCODED_TOGETHER = 4  # images; with 16 the activations leave the processor's cache, and it takes 1.3 times as long

Arrays = Mapping[str, NDArray[Any]]


class OnnxEngine:
    """Holds the sessions of a model's three graphs; memory and state are NumPy arrays, passed in and out.

    Args:
        folder: holds the graphs and their weights.
        threads: that an operation is spread over; None is one for each core.

    Raises:
        BundleError: a graph is missing or damaged.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.threads = threads
        self.encoder, self.starter, self.stepper = (
            _session(folder / name, threads) for name in (ENCODER, DECODER_START, DECODER_STEP)
        )
        self.memory_names = [output.name for output in self.starter.get_outputs()]
        self.step_names = [output.name for output in self.stepper.get_outputs()]
        self.max_words = int(self.stepper.get_modelmeta().custom_metadata_map.get("max_positions", 2**31))
        self.growing = {  # the arrays that grow by a row with each word, and the axis on which they do
            value.name: value.shape.index("words") for value in self.stepper.get_inputs() if "words" in value.shape
        }

    @classmethod
    def from_bundle(cls, bundle: Bundle, threads: int | None = None) -> "OnnxEngine":
        """The engine of an exported model on disk."""
        return cls(bundle.path, threads)

    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images `[B, 3, S, S]` as `images.prepare` makes them -> the encoder's grid `[B, N, D]`."""
        batches = [images[first : first + ENCODED_TOGETHER] for first in range(0, len(images), ENCODED_TOGETHER)]
        return np.concatenate([self.encoder.run(None, {"images": batch})[0] for batch in batches])

    def encode(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Images `[B, 3, S, S]` -> memory."""
        return self.memory_of(self.features(images))

    def memory_of(self, grid: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Cached features `[B, N, D]` -> memory: `encode` without the encoder."""
        arrays = self.starter.run(None, {"grid": np.asarray(grid, np.float32)})
        return dict(zip(self.memory_names, arrays, strict=True))

    def start(self, memory: Arrays, attention: bool = False) -> dict[str, NDArray[Any]]:
        """The state before the first word, one row an image; attention comes with every step, asked for or not."""
        return {name: array for name, array in memory.items() if name.startswith("state.")}

    def step(
        self,
        memory: Arrays,
        state: Arrays,
        tokens: NDArray[np.int64],
        parents: NDArray[np.int64] | None,
        top: int,
    ) -> tuple[Proposals, dict[str, NDArray[Any]]]:
        """One word more for each hypothesis: the `top` likeliest next words of each, and the new state.

        Raises:
            UsageError: the caption is longer than the model has positions for.
        """
        for name, axis in self.growing.items():
            if state[name].shape[axis] >= self.max_words:
                raise UsageError(
                    f"This model has positions for captions of {self.max_words} words and no more.",
                    "Lower max_words.",
                )
        if parents is None:
            parents = np.tile(np.arange(tokens.shape[1]), (len(tokens), 1))
        feed = {**memory, **state, "tokens": tokens, "parents": parents, "top": np.array(top)}
        answer = dict(zip(self.step_names, self.stepper.run(None, feed), strict=True))
        proposals = Proposals(answer.pop("ids"), answer.pop("log_probs"), answer.pop("attention", None))
        return proposals, {name.replace("next", "state", 1): array for name, array in answer.items()}

    def select(
        self, memory: Arrays, state: Arrays, images: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """The given images of the batch; the others leave."""
        return select(memory, images), select(state, images)

    def batch_size(self, memory: Arrays) -> int:
        """B."""
        return len(next(iter(memory.values())))


def _session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # what goes wrong is raised, too
    # Rounded weights become float32 once, here: ONNX Runtime would keep them for int8 arithmetic, and do it every step.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Int8 products add pairs in 16 bits on processors without VNNI, and would saturate: give them wider ones there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Three sessions have three pools of threads: those that wait for work must leave the cores to the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise BundleError(f"The exported model {path} can't be read.", "Export the model again.") from error
