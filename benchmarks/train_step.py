"""One training step of Show, Attend and Tell: ours beside a plain loop over captions, in one process.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --beside 2      while two other processes are busy

Both learn the same captions of the same images with the same sizes; the plain loop is what most tutorials do: a copy
of the image for each caption, an attention and an `LSTMCell` call at each step, padded captions. It comes in two
strengths: with the keys projected again at each step (as the tutorials do), and with the keys projected once.
Ours has a row in float32, and one in bfloat16 if `precision: auto` means that here; the plain loop is float32 in both.
Times are medians of alternating runs. The share of the machine's speed is the time that the step's matrix products
would need at the speed of `torch.matmul` on 2048 x 2048 matrices in the row's precision, over the measured time.
"""

import argparse
from collections.abc import Callable

import showtell.training  # noqa: F401 - before PyTorch, like `showtell train`: it says how threads wait

# isort: split
import torch
from timing import beside, median_seconds, product_speed
from torch import Tensor, nn
from torch.nn import functional as F

from showtell.models.packing import Packing
from showtell.models.show_attend_and_tell import ShowAttendAndTell, ShowAttendAndTellConfig
from showtell.training.precision import has_bfloat16

D, H, A, E, V, K = 2048, 512, 512, 512, 2917, 5
WIDTHS = (16, 13, 12, 10, 8)  # the mean lengths of Flickr8k's longest to shortest caption, `<start>` included


class PlainLoop(nn.Module):
    """The usual tutorial's decoder: rows are captions, each with its own copy of the image."""

    def __init__(self, project_once: bool) -> None:
        super().__init__()
        self.project_once = project_once
        self.embedding = nn.Embedding(V, E)
        self.initial_h, self.initial_c = nn.Linear(D, H), nn.Linear(D, H)
        self.key, self.query, self.score = nn.Linear(D, A), nn.Linear(H, A), nn.Linear(A, 1)
        self.beta = nn.Linear(H, 1)
        self.cell = nn.LSTMCell(E + D, H)
        self.output_h, self.output_z, self.output = nn.Linear(H, E), nn.Linear(D, E), nn.Linear(E, V)
        self.dropout = nn.Dropout(0.5)

    def forward(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """`[B*K, N, D]` and `[B*K, T]` -> logits `[B*K, T, V]`."""
        embedded = self.dropout(self.embedding(tokens))
        mean = grid.mean(1)
        h, c = torch.tanh(self.initial_h(mean)), torch.tanh(self.initial_c(mean))
        keys = self.key(grid) if self.project_once else None
        logits = []
        for word in embedded.unbind(1):
            scores = self.score(torch.tanh((self.key(grid) if keys is None else keys) + self.query(h)[:, None]))
            alpha = scores.softmax(1)
            context = self.beta(h).sigmoid() * (alpha * grid).sum(1)
            h, c = self.cell(torch.cat([word, context], 1), (h, c))
            logits.append(self.output(self.dropout(word + self.output_h(h) + self.output_z(context))))
        return torch.stack(logits, 1)


def plain_step(images: int, cells: int, project_once: bool) -> Callable[[], None]:
    """A training step of the plain loop on `images` images."""
    model = PlainLoop(project_once)
    grid = torch.randn(images, cells, D)
    tokens = torch.randint(4, V, (images * K, max(WIDTHS)))
    real = torch.arange(max(WIDTHS)) < torch.tensor(WIDTHS * images)[:, None]
    targets = torch.where(real, torch.randint(4, V, real.shape), 0)

    def step() -> None:
        model.zero_grad()
        logits = model(grid.repeat_interleave(K, 0), tokens)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0).backward()

    return step


def our_step(images: int, cells: int, dtype: torch.dtype) -> Callable[[], None]:
    """The same with the image shared by its captions, no padding, and products in `dtype`."""
    model = ShowAttendAndTell(ShowAttendAndTellConfig(), D, V)
    packing = Packing.of_widths(WIDTHS)
    grid = torch.randn(images, cells, D)
    tokens = torch.randint(4, V, (images, K, max(WIDTHS)))
    targets = torch.randint(4, V, (images, packing.size))

    def step() -> None:
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model.forced(model.memory(grid), tokens, packing).logits
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()

    return step


def operations(images: int, cells: int) -> float:
    """Multiplications and additions in the matrix products of our step, forward and backward."""
    word = E * 4 * H + H * (4 * H + A + 1) + D * 4 * H + (H + D) * E + E * V
    look = cells * (A + D)
    return 3 * 2 * images * sum(WIDTHS) * (word + look) + 2 * 2 * images * cells * D * A


def main() -> None:
    """Print a line for each grid and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--beside", type=int, default=0, help="other processes that keep a core busy each")
    options = parser.parse_args()
    torch.manual_seed(0)
    dtypes = [torch.float32, *([torch.bfloat16] if has_bfloat16(cpu=True) else [])]
    speeds = [product_speed(dtype) for dtype in dtypes]
    print(
        f"D={D} H=A=E={H} V={V} K={K}, {options.images} images a batch, {torch.get_num_threads()} threads, "
        f"beside {options.beside} busy processes"
    )
    for dtype, speed in zip(dtypes, speeds, strict=True):
        print(f"matrix products, {name_of(dtype)}, alone: {speed / 1e9:.0f} GFLOP/s")
    print("  N   precision   captions/s: ours   plain, keys once   plain, keys each step   ours / plain   matrix speed")
    for cells in (49, 196):
        steps = [
            plain_step(options.images, cells, project_once=True),
            plain_step(options.images, cells, project_once=False),
            *(our_step(options.images, cells, dtype) for dtype in dtypes),
        ]
        with beside(options.beside):
            seconds = median_seconds(steps, options.repeats)
        once, each, *ours = (options.images * K / s for s in seconds)
        for dtype, speed, rate in zip(dtypes, speeds, ours, strict=True):
            share = operations(options.images, cells) / speed * rate / (options.images * K)
            print(
                f"{cells:4}   {name_of(dtype):9}   {rate:16.0f}   {once:16.0f}   {each:21.0f}"
                f"   {rate / once:.1f} x, {rate / each:.1f} x   {share:8.0%}"
            )


def name_of(dtype: torch.dtype) -> str:
    """`float32` or `bfloat16`."""
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
