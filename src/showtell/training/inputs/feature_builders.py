"""One feature cache, built by several processes; each builds its own part."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from showtell.data import load
from showtell.data.features.cache import images_done, part_name
from showtell.errors import DataError, ShowtellError
from showtell.models.encoders import build_encoder
from showtell.training.inputs.features import examples_of_part, fill, writer_for

POLL_SECONDS = 0.5


def fill_in_processes(
    spec: str,
    encoder: Mapping[str, Any],
    folder: Path,
    processes: int,
    batch_size: int,
    watch: Callable[[int], None] = lambda done: None,
) -> None:
    """Build the cache of the data set `spec` in `folder`; if one process dies, the others continue.

    Args:
        spec: the SPEC of the data set, which each process loads for itself.
        encoder: the config for `build_encoder`; its weights must not be random.
        folder: the folder of the cache.
        processes: the number of processes; each gets its share of the cores.
        batch_size: images that a process encodes together.
        watch: called from time to time with the number of images done.

    Raises:
        DataError: a process failed; the same call continues.
        KeyboardInterrupt: Ctrl-C, after the processes have stopped.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks held by threads
    builders = [
        context.Process(
            name=f"builder {part}", target=_build, args=(spec, dict(encoder), folder, part, processes, batch_size)
        )
        for part in range(1, processes + 1)
    ]
    for builder in builders:
        builder.start()
    try:
        while any(builder.is_alive() for builder in builders):
            watch(images_done(folder))
            time.sleep(POLL_SECONDS)
    finally:  # Ctrl-C has reached the processes, too
        for builder in builders:
            builder.join()
    watch(images_done(folder))
    failed = [f"{part} (exit code {b.exitcode})" for part, b in enumerate(builders, 1) if b.exitcode]
    if failed:
        raise DataError(
            f"Of {processes} builders of {folder}, these failed: {', '.join(failed)}.",
            "Run the same command: it continues where they stopped.",
        )


def _build(spec: str, encoder: dict[str, Any], folder: Path, part: int, parts: int, batch_size: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // parts))
    try:
        network = build_encoder(encoder)
        examples = examples_of_part(load(spec).examples, part, parts)
        with writer_for(examples, network, folder, part_name(part, parts)) as writer:
            fill(writer, examples, network, batch_size=batch_size)
    except ShowtellError as error:
        print(f"showtell: builder {part} of {parts}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
