"""OpenVINO: 1.5 times as fast as ONNX Runtime if the processor multiplies in bfloat16 (8 significant bits).

It reads the same graphs. Compiled graphs are kept in the user's cache, so that the next start need not compile them.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from numpy.typing import NDArray

from showtell.bundle import DECODER_START, DECODER_STEP, ENCODER
from showtell.engines.exported import CORES, Arrays, ExportedEngine, batches_at_a_time
from showtell.errors import BundleError
from showtell.files import cache_folder

# OpenVINO imports its converter if it can, which reports each import to Google Analytics. Nobody asked for that.
CONVERTER = "openvino.tools.ovc"
sys.modules.setdefault(CONVERTER, None)  # type: ignore[arg-type]
import openvino  # noqa: E402
from openvino.passes import ConstantFolding, Manager  # noqa: E402

if sys.modules[CONVERTER] is None:
    del sys.modules[CONVERTER]

# OpenVINO's binding makes its table of types on first use. Two threads that need it at once would deadlock: one makes
# the table and waits for the GIL, the other holds the GIL and waits for the table.
openvino.Type.f32.to_dtype()

Precision = Literal["float32", "bfloat16"]


class OpenVinoEngine(ExportedEngine):
    """An exported model, run by OpenVINO.

    Args:
        folder: holds the graphs and their weights.
        threads: how many threads share an operation; None uses one per core.
        precision: the precision of products; None is bfloat16 if the processor has it, else float32.

    Raises:
        BundleError: a graph is missing or damaged, has int8 convolutions, which OpenVINO can't read, or can't run here.
    """

    def __init__(self, folder: Path, threads: int | None = None, precision: Precision | None = None) -> None:
        precision = precision or ("bfloat16" if has_bfloat16() else "float32")
        encoder, starter, stepper = (
            Graph(folder / name, threads, precision) for name in (ENCODER, DECODER_START, DECODER_STEP)
        )
        super().__init__(
            encoder,
            starter,
            stepper,
            growing=stepper.growing,
            max_words=stepper.max_words,
            threads=threads,
            arithmetic=f"openvino {precision}",
        )


class Graph:
    """A graph, run by OpenVINO."""

    def __init__(self, path: Path, threads: int | None, precision: Precision) -> None:
        model = _read(path)
        self.growing = {
            value.any_name: axis
            for value in model.inputs
            for axis, size in enumerate(value.partial_shape)
            if value.any_name.startswith("state.") and axis > 1 and size.is_dynamic
        }
        noted = ["framework", "max_positions"]
        self.max_words = int(model.get_rt_info(noted).astype(str)) if model.has_rt_info(noted) else 2**31
        at_a_time = batches_at_a_time(threads)
        self.compiled = _compile(
            model,
            {
                "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
                "NUM_STREAMS": at_a_time,
                "INFERENCE_NUM_THREADS": at_a_time * (threads or CORES),
                # If shapes change, OpenVINO 2026.4 may use a fused kernel that was made for another shape:
                # captions of a transformer went wrong from the 16th word on.
                "SNIPPETS_MODE": "DISABLE",
                "ENABLE_CPU_PINNING": False,  # otherwise the caller's thread, and all that it starts, stay on one core
            },
        )
        self.inputs = [value.any_name for value in self.compiled.inputs]
        self.outputs = [value.any_name for value in self.compiled.outputs]
        # Idle requests; each holds its own outputs. All are made here, one per stream: making one holds the GIL and
        # waits for a stream's lock, and a running stream may wait for both in the opposite order.
        self.idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(at_a_time):
            self.idle.put(self.compiled.create_infer_request())

    def __call__(self, feed: Arrays) -> dict[str, NDArray[Any]]:
        request = self.idle.get()
        try:
            request.infer({name: feed[name] for name in self.inputs}, share_inputs=True, share_outputs=True)
            return {name: request.get_output_tensor(n).data.copy() for n, name in enumerate(self.outputs)}
        finally:
            self.idle.put(request)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 natively."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    """OpenVINO with its CPU plugin loaded.

    The plugin gives the thread that loads it a signal stack that is too small for Python's handlers: Ctrl-C would
    end the process with a segmentation fault. So a short-lived thread loads it.
    """
    core = openvino.Core()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(core.get_property, "CPU", "FULL_DEVICE_NAME").result()
    return core


def _read(path: Path) -> openvino.Model:
    """The graph in float32.

    Weights that are stored in fewer bits become float32 once, here: OpenVINO would keep them as they are, and round
    what they multiply to int8 as well.
    """
    try:
        model = _core().read_model(path)
        fold = Manager()
        fold.register_pass(ConstantFolding())
        fold.run_passes(model)
    except RuntimeError as error:
        raise BundleError(f"OpenVINO can't read the exported model {path}.", "Use --engine onnx.") from error
    return model


def _compile(model: openvino.Model, settings: dict[str, Any]) -> openvino.CompiledModel:
    """The compiled graph, from the cache if it is there; an unusable cache is ignored."""
    folder = cache_folder() / "openvino" / settings["INFERENCE_PRECISION_HINT"]  # OpenVINO's keys lack it
    try:
        return _core().compile_model(model, "CPU", {**settings, "CACHE_DIR": str(folder)})
    except RuntimeError:
        with suppress(RuntimeError):
            return _core().compile_model(model, "CPU", settings)
        raise BundleError("OpenVINO can't run this model on this processor.", "Use --engine onnx.") from None
