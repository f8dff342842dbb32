"""Beyond one machine's memory and one process: a feature cache of MS-COCO's size, and training with several processes.

    python benchmarks/scale.py memory --plot memory.svg    # 15 GB that take no disk: is the memory flat?
    python benchmarks/scale.py disk --gigabytes 2          # a real file, dropped from the page cache: images a second
    python benchmarks/scale.py train recipes/flickr8k.yaml --data flickr8k:DIR --processes 1 2

memory  The cache is a sparse file: it has the length of 123,287 images x 49 cells x 1,280 numbers of 16 bits, and no
        content. Two processes read random batches as the trainer does: one reads rows (`FeatureCache`), one maps the
        file into its memory (`numpy.memmap`). The memory is the process's resident set. The speed is an upper bound,
        because the zeros are not read from a disk.
disk    The same with random numbers in a real file, which is dropped from the page cache before each run. Each image
        is read once, in random order, as in a first epoch; `again` is a second epoch, with what the page cache kept.
train   `torchrun` with these numbers of processes, each with its share of the cores (the cores over the largest
        number); features are cached before. Captions a second of the last epoch, all processes together, and the
        efficiency compared with as many single processes. The last line is one process on all cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from showtell.data.features.cache import DONE, FORMAT_VERSION, FeatureCache

COCO_IMAGES, CELLS, WIDTH = 123_287, 49, 1280
ROW_BYTES = CELLS * WIDTH * 2
BATCH = 20
READERS = ("read", "map")
SEEN = 100  # batches between two looks at the memory

Figures = dict[str, Any]


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    memory = parts.add_parser("memory", help="memory over thousands of batches of a sparse cache of COCO's size")
    memory.add_argument("--images", type=int, default=COCO_IMAGES)
    memory.add_argument("--batches", type=int, default=5000)
    memory.add_argument("--plot", type=Path, help="PNG or SVG to draw")
    memory.set_defaults(run=memory_part)
    disk = parts.add_parser("disk", help="speed of reading a real file")
    disk.add_argument("--gigabytes", type=float, default=2.0)
    disk.set_defaults(run=disk_part)
    train = parts.add_parser("train", help="captions a second with several processes")
    train.add_argument("recipe")
    train.add_argument("--data", required=True)
    train.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    train.add_argument("--features", help="feature cache; by default it is built first")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    train.set_defaults(run=train_part)
    for part in (memory, disk):
        part.add_argument("--folder", type=Path, help="where the cache is made; a temporary folder by default")
    options = parser.parse_args()
    options.run(options)


def memory_part(options: argparse.Namespace) -> None:
    """Print and draw the memory of both readers, batch by batch."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = make_cache(Path(name), options.images)
        file = (folder / "features.f16").stat()
        title = f"{options.images:,} images, {file.st_size / 1e9:.1f} GB of features"
        print(f"{title}, on the disk {file.st_blocks * 512 / 1e6:.1f} MB")
        found = {reader: child(reader, folder, options.batches, epochs=1) for reader in READERS}
    print(f"reader   images/s   MB before   after {SEEN}   at the end   most")
    for reader, figures in found.items():
        before, *seen = figures["megabytes"]
        print(
            f"{reader:7}{figures['speeds'][0]:10,.0f}{before:12,.0f}{seen[0]:12,.0f}{seen[-1]:13,.0f}{max(seen):7,.0f}"
        )
    if options.plot:
        draw(options.plot, found, title)


def disk_part(options: argparse.Namespace) -> None:
    """Print the speed of both readers on a real file."""
    images = int(options.gigabytes * 1e9 / ROW_BYTES)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = make_cache(Path(name), images, np.random.default_rng(0))
        print(f"{images:,} images, {images * ROW_BYTES / 1e9:.1f} GB of random numbers")
        print("reader   images/s   GB/s   again   GB/s   most MB")
        for reader in READERS:
            if not drop_from_page_cache(folder / "features.f16"):
                print("This system can't drop a file from its page cache: these are the speeds of the page cache.")
            figures = child(reader, folder, images // BATCH, epochs=2)
            speeds = "".join(f"{speed:10,.0f}{speed * ROW_BYTES / 1e9:7.2f}" for speed in figures["speeds"])
            print(f"{reader:7}{speeds}{max(figures['megabytes']):10,.0f}")


def train_part(options: argparse.Namespace) -> None:
    """Print the captions a second with each number of processes."""
    cores = os.cpu_count() or 1
    share = max(1, cores // max(options.processes))
    with tempfile.TemporaryDirectory() as name:
        features = options.features or str(Path(name) / "features")
        arguments = ["train", options.recipe, "--data", options.data, "--features", features]
        arguments += [word for change in options.set for word in ("--set", change)]
        launches = dict.fromkeys([*((processes, share) for processes in options.processes), (1, cores)])
        found = [
            (processes, threads, trained(arguments, Path(name) / f"{processes}-{threads}", processes, threads))
            for processes, threads in launches
        ]
    print("processes   threads of each   captions/s   times one   efficiency")
    first, _, speed = found[0]
    for processes, threads, captions in found:
        gain = captions / (speed / first)
        efficiency = f"{gain * share / (processes * threads):13.0%}"
        print(f"{processes:9}{threads:18}{captions:13,.0f}{gain:12.2f}{efficiency}")


def trained(arguments: Sequence[str], run: Path, processes: int, threads: int) -> float:
    """Train; the captions a second of the last epoch."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([*launch, "-m", "showtell", *arguments, "--out", str(run)], check=True, env=environment)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(next(speed for line in reversed(lines) if (speed := line.get("captions_per_second"))))


def make_cache(folder: Path, images: int, random: np.random.Generator | None = None) -> Path:
    """A finished cache of random numbers, or of a hole that reads as zeros."""
    index = {"format_version": FORMAT_VERSION, "fingerprint": "simulated", "cells": CELLS, "width": WIDTH}
    names = [f"{number:012}" for number in range(images)]
    (folder / "index.json").write_text(json.dumps({**index, "images": names, "stamps": names}))
    (folder / "done.u8").write_bytes(bytes([DONE]) * images)
    with (folder / "features.f16").open("wb") as file:
        if random is None:
            file.truncate(images * ROW_BYTES)
        else:
            for _ in range(images):
                file.write(random.standard_normal(ROW_BYTES // 2, np.float32).astype(np.float16).tobytes())
            file.flush()
            os.fsync(file.fileno())
    return folder


def drop_from_page_cache(file: Path) -> bool:
    """Drop a file from the page cache; returns whether the system can do that."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def draw(plot: Path, found: dict[str, Figures], title: str) -> None:
    """Memory over batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    labels = {"read": "read row by row (what showtell does)", "map": "memory map: evictable, but counted"}
    for reader, figures in found.items():
        seen = figures["megabytes"]
        axes.plot([number * SEEN for number in range(len(seen))], seen, label=labels[reader])
    axes.set(xlabel=f"batches of {BATCH} images", ylabel="resident memory, MB", title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(plot)


# What follows runs in the processes that are measured.


def child(reader: str, folder: Path, batches: int, epochs: int) -> Figures:
    """The figures that a new process measures."""
    arguments = [sys.executable, __file__, "--measure", reader, str(folder), str(batches), str(epochs)]
    answer = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(answer.stdout)
    return figures


def measure(reader: str, folder: str, batches: str, epochs: str) -> None:
    """Print images a second of each epoch, and the memory on the way, as JSON."""
    names, rows = rows_of(reader, Path(folder))
    random = np.random.default_rng(0)
    megabytes, speeds = [resident_megabytes()], []
    for _ in range(int(epochs)):
        order = random.permutation(len(names))
        begin = time.perf_counter()
        for number in range(int(batches)):
            chosen = [names[i] for i in np.take(order, range(number * BATCH, (number + 1) * BATCH), mode="wrap")]
            rows(chosen)
            if number % SEEN == SEEN - 1:
                megabytes.append(resident_megabytes())
        speeds.append(int(batches) * BATCH / (time.perf_counter() - begin))
    print(json.dumps({"speeds": speeds, "megabytes": megabytes}))


def rows_of(reader: str, folder: Path) -> tuple[Sequence[str], Callable[[Sequence[str]], Any]]:
    """The images' names, and a function that reads a batch of them, `[B, N, D]`."""
    names = json.loads((folder / "index.json").read_text())["images"]
    if reader == "read":
        return names, FeatureCache.open(folder).rows
    row = {name: number for number, name in enumerate(names)}
    mapped = np.memmap(folder / "features.f16", np.float16, "r", shape=(len(names), CELLS, WIDTH))
    return names, lambda chosen: np.asarray(mapped[[row[name] for name in chosen]])


def resident_megabytes() -> float:
    """The process's resident set, pages of mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main()
