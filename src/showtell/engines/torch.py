"""The PyTorch engine, which training uses for validation."""

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.bundle import Bundle
from showtell.errors import BundleError
from showtell.models.captioning_model import CaptioningModel, build_decoder, decoder_config
from showtell.models.decoder import Arrays
from showtell.models.encoders import build_encoder, encoder_config, folded
from showtell.search.engine import Proposals, select

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class TorchEngine:
    """Holds a model's weights and nothing else: memory and state are values, so two searches can run at once.

    PyTorch spreads each operation over all cores, so one batch at a time is enough.

    Args:
        model: encoder and decoder; the engine uses them in their current mode (train or eval).
        device: where the tensors are; the interface takes and returns NumPy arrays.
    """

    batches_at_a_time = 1
    arithmetic = None

    def __init__(self, model: CaptioningModel, device: str | torch.device = "cpu") -> None:
        self.model = model
        self.device = torch.device(device)

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str | torch.device = "cpu") -> "TorchEngine":
        """The engine of a model on disk, ready for inference: batch norm folded, weights packed."""
        model = model_of(bundle)
        model.encoder = folded(model.encoder)
        model.eval().to(device)
        model.decoder = with_packed_weights(model.decoder)
        return cls(model, device)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.float32]) -> Arrays:
        """Images `[B, 3, S, S]` as `images.prepare` makes them -> memory."""
        grid = self.model.encoder(self._tensor(images).contiguous(memory_format=torch.channels_last))
        return self._memory(grid)

    @torch.inference_mode()
    def memory_from_grid(self, grid: NDArray[np.floating[Any]]) -> Arrays:
        return self._memory(self._tensor(grid))

    @torch.inference_mode()
    def start(self, memory: Arrays, attention: bool = False) -> Arrays:
        """The state before the first word, one row per image; every step returns attention, requested or not."""
        return self.model.decoder.start(memory)

    @torch.inference_mode()
    def step(
        self,
        memory: Arrays,
        state: Arrays,
        tokens: NDArray[np.int64],
        parents: NDArray[np.int64] | None,
        top: int,
    ) -> tuple[Proposals, Arrays]:
        """One more word for each hypothesis: the `top` likeliest next words of each, and the new state."""
        if parents is not None:
            state = _gather(state, self._tensor(parents))
        logits, attention, new_state = self.model.decoder.step(memory, state, self._tensor(tokens))
        alpha = None if attention is None else attention.float().cpu().numpy()
        return Proposals(*_best(logits.float().log_softmax(-1), top), alpha), new_state

    @torch.inference_mode()
    def select(self, memory: Arrays, state: Arrays, images: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
        """Only the given images of the batch."""
        rows = self._tensor(images)
        return select(memory, rows), select(state, rows)

    def batch_size(self, memory: Arrays) -> int:
        return len(next(iter(memory.values())))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _memory(self, grid: Tensor) -> Arrays:
        return self.model.decoder.memory(grid.float())


def model_of(bundle: Bundle) -> CaptioningModel:
    """The model on disk, as training left it.

    Raises:
        BundleError: its weights are missing, or belong to another model.
    """
    encoder = build_encoder(encoder_config(bundle.config.encoder), pretrained=False)
    config, weights = decoder_config(bundle.config.decoder), weights_of(bundle)
    try:
        # First without memory: a config could demand any amount of it.
        with torch.device("meta"):
            described = build_decoder(config, encoder.width, len(bundle.tokenizer)).state_dict()
        if any(values.shape != weights[f"decoder.{name}"].shape for name, values in described.items()):
            raise KeyError
        model = CaptioningModel(encoder, build_decoder(config, encoder.width, len(bundle.tokenizer)))
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, KeyError) as error:  # TypeError: a size that is not a size
        raise BundleError(
            f"The weights in {bundle.path} are not those of the model that its config describes."
        ) from error
    return model


def weights_of(bundle: Bundle) -> dict[str, Tensor]:
    """The state dict on disk."""
    return {name: torch.from_numpy(array) for name, array in bundle.weights().items()}


def _best(log_probs: Tensor, top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ids `[B, K, top]` of the likeliest words, the likeliest first, and their log-probabilities."""
    if top < log_probs.shape[-1]:
        values, ids = log_probs.topk(top, dim=-1)
        return ids.cpu().numpy(), values.cpu().numpy()
    everything = log_probs.cpu().numpy()
    order = np.argsort(-everything, axis=-1)  # for a whole vocabulary (sampling), 5 times as fast as PyTorch's sort
    return order, np.take_along_axis(everything, order, axis=-1)


def _gather(state: Arrays, parents: Tensor) -> dict[str, Tensor]:
    """`search.gather` for tensors: `index_select` copies rows three times as fast as indexing with two arrays."""
    images, rows = next(iter(state.values())).shape[:2]
    flat = (torch.arange(images, device=parents.device)[:, None] * rows + parents).flatten()
    return {
        name: array.flatten(0, 1).index_select(0, flat).unflatten(0, parents.shape) for name, array in state.items()
    }


def with_packed_weights(decoder: AnyModule) -> AnyModule:
    """The decoder, with weights in oneDNN's fastest layout; for inference only, changed in place.

    On the CPU, PyTorch uses MKL for float32 products, which uses half the width of an AMD processor's registers:
    with the 5 x 16 rows of a beam search, oneDNN is 2.3 times as fast there, in the same float32 arithmetic.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return decoder
    for module in decoder.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim == 2 and weight.dtype == torch.float32 and weight.device.type == "cpu":
                delattr(module, name)
                module.register_buffer(name, _PackedWeight.of(weight.detach()))
    return decoder


class _PackedWeight(Tensor):
    """A matrix that only `linear` treats differently: it multiplies by the packed copy."""

    packed: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> "_PackedWeight":
        this = weight.as_subclass(cls)
        this.packed = torch.ops.mkldnn._reorder_linear_weight(weight, 80)  # the layout's number of rows
        return this

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.linear and not kwargs and isinstance(args[1], cls):
                x, weight, bias = (*args, None)[:3]
                return torch.ops.mkldnn._linear_pointwise(x, weight.packed, bias, "none", [], "")
            return func(*args, **(kwargs or {}))
