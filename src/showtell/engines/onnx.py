"""ONNX Runtime, the engine that comes with the package."""

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from showtell.bundle import DECODER_START, DECODER_STEP, ENCODER
from showtell.engines.exported import Arrays, ExportedEngine
from showtell.errors import BundleError


class OnnxEngine(ExportedEngine):
    """An exported model, run by ONNX Runtime in float32, or in int8 where the graphs say so.

    Args:
        folder: holds the graphs and their weights.
        threads: how many threads share an operation; None uses one per core.

    Raises:
        BundleError: a graph is missing or damaged.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        encoder, starter, stepper = (Graph(folder / name, threads) for name in (ENCODER, DECODER_START, DECODER_STEP))
        inputs = stepper.session.get_inputs()
        super().__init__(
            encoder,
            starter,
            stepper,
            growing={value.name: value.shape.index("words") for value in inputs if "words" in value.shape},
            max_words=int(stepper.session.get_modelmeta().custom_metadata_map.get("max_positions", 2**31)),
            threads=threads,
            arithmetic="onnx",
        )


class Graph:
    """A graph, run by ONNX Runtime."""

    def __init__(self, path: Path, threads: int | None) -> None:
        self.session = _session(path, threads)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def __call__(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        arrays = self.session.run(None, {name: feed[name] for name in self.inputs})
        return dict(zip(self.outputs, arrays, strict=True))


def _session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised anyway
    # Rounded weights become float32 once, here: ONNX Runtime would keep them for int8 arithmetic, at every step.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Without VNNI, int8 products add pairs in 16 bits, and would saturate: use a wider type there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Three sessions have three thread pools: threads that wait for work must not block the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise BundleError(f"The exported model {path} can't be read.", "Export the model again.") from error
