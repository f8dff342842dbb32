"""How the benchmarks measure: medians of alternating runs, and the machine's own speed."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


def median_seconds(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The median time of each run; runs take turns, so that the machine's moods affect all of them."""
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        for i, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            if repeat:  # the first one warms up
                times[i].append(time.perf_counter() - begin)
    return [statistics.median(t) for t in times]


def product_speed(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second in a large matrix product."""
    matrix = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / median_seconds([lambda: matrix @ matrix], 9)[0]


@contextmanager
def beside(processes: int) -> Iterator[None]:
    """While this context is open, that many other processes each keep a core busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
