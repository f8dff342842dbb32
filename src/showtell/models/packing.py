"""Teacher forcing without padding: which of a batch's K x T positions hold words, and their order of computation.

The captions of an image are sorted longest first, so at step t of a batch the first K_t captions of every image are
still running. A decoder computes only the P = K_0 + K_1 + ... remaining positions, step by step:

    step        0  1  2  3  4  5            packed axis (P = 13)
    caption 0   a  dog runs on grass .      0 0 0 | 1 1 1 | 2 2 2 | 3 3 | 4 | 5     <- step t
    caption 1   the dog runs fast           0 1 2 | 0 1 2 | 0 1 2 | 0 1 | 0 | 0     <- caption k
    caption 2   a brown dog

This is torch.nn.utils.rnn.PackedSequence with the image's axis B kept in front: every array is `[B, P, ...]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The positions (k, t) that a batch computes, in the order of their steps.

    Args:
        running: K_t for t = 0 .. T-1: how many captions of each image are still running at step t; never rises.
    """

    running: tuple[int, ...]

    @classmethod
    def full(cls, captions: int, steps: int) -> "Packing":
        """All K x T positions."""
        return cls((captions,) * steps)

    @classmethod
    def of_widths(cls, widths: Sequence[int]) -> "Packing":
        """The packing of K captions with the given numbers of steps, longest first (a batch's widest for each k)."""
        if any(a < b for a, b in pairwise(widths)):
            raise ValueError(f"captions must be sorted longest first, got widths {list(widths)}")
        return cls(tuple(sum(width > t for width in widths) for t in range(max(widths))))

    @property
    def size(self) -> int:
        """P, the positions of one image."""
        return sum(self.running)

    @cached_property
    def captions(self) -> Tensor:
        """The caption k of each position, int64 `[P]`."""
        return torch.cat([torch.arange(k) for k in self.running])

    @cached_property
    def steps(self) -> Tensor:
        """The step t of each position, int64 `[P]`."""
        return torch.repeat_interleave(torch.arange(len(self.running)), torch.tensor(self.running))

    def pack(self, values: Tensor) -> Tensor:
        """`[B, K, T, ...]` -> `[B, P, ...]`."""
        return values[:, self.captions.to(values.device), self.steps.to(values.device)]

    def unpack(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """`[B, P, ...]` -> `[B, K, T, ...]`, with `fill` where nothing was computed."""
        batch, _, *rest = values.shape
        unpacked = values.new_full((batch, self.running[0], len(self.running), *rest), fill)
        unpacked[:, self.captions.to(values.device), self.steps.to(values.device)] = values
        return unpacked
