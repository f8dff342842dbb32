"""Build feature caches: threads read images while the encoder works on earlier ones."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from showtell.captioner import READING_THREADS, done_ahead, in_batches
from showtell.data.dataset import Example
from showtell.data.features.cache import FeatureCache
from showtell.data.features.writer import CacheWriter
from showtell.errors import ImageError
from showtell.files import cache_folder
from showtell.images.decode import Preprocessing, normalise, resize
from showtell.models.encoders import Encoder, folded
from showtell.training import processes

BATCH_SIZE = 16
BATCHES_AHEAD = 3

Square = npt.NDArray[np.uint8]


def cached_features(
    name: str,
    examples: Sequence[Example],
    encoder: Encoder,
    folder: Path | None = None,
    watch: Callable[[int, int, int], None] = lambda done, images, size: None,
) -> FeatureCache:
    """The features of these images; what the cache lacks is computed now, each process its share.

    Args:
        name: the data set's name, part of the folder's name.
        examples: the images.
        encoder: the encoder, with weights: they are part of the cache's fingerprint.
        folder: the folder of the cache; by default one in the user's cache folder for this encoder and these images.
        watch: called with the number of images done, of all images, and of their bytes, before the first image and
            after each.

    Raises:
        DataError: the folder's cache is of another encoder or other images, or the disk is too small.
        UsageError: not all processes can see the folder.
    """
    folder = folder or default_folder(name, examples, encoder)
    for turn in (processes.is_main(), not processes.is_main()):  # the main process makes the files, then all fill them
        with processes.agreed():
            if turn:
                if not processes.is_main():
                    processes.refuse_another_disk(folder / "index.json", "--features")
                writer = writer_for(examples, encoder, folder)
    unreadable: dict[str, str] = {}
    with writer:
        images, done = len(writer.to_do), count(1)
        watch(0, images, writer.new_bytes)
        with processes.agreed():
            fill(
                writer,
                examples,
                encoder,
                advance=lambda: watch(min(images, next(done) * processes.count()), images, writer.new_bytes),
                own=processes.own_slice(),
                # One file holds the reasons: the other processes send theirs to the main process, which writes it.
                leave_out=writer.leave_out if processes.is_main() else unreadable.__setitem__,
            )
        for of_process in processes.everyones(unreadable):
            for image_id, reason in of_process.items() if processes.is_main() else ():
                writer.leave_out(image_id, reason)
    processes.wait()
    return FeatureCache.open(folder)


def writer_for(examples: Sequence[Example], encoder: Encoder, folder: Path, part: str = "") -> CacheWriter:
    """A writer that knows which images are still to do; nothing is computed yet.

    Args:
        examples: the images.
        encoder: as in `cached_features`.
        folder: the folder of the cache.
        part: the part of the cache, if several processes build it.

    Raises:
        DataError: as in `cached_features`.
    """
    stamps = {example.image_id: example.stamp for example in examples}
    return CacheWriter(folder, fingerprint(encoder), encoder.cells, encoder.width, stamps, part)


def examples_of_part(examples: Sequence[Example], part: int, parts: int) -> Sequence[Example]:
    """The images of builder `part`, 1 to `parts`: neighbours, since they are close together on the disk."""
    return examples[(part - 1) * len(examples) // parts : part * len(examples) // parts]


def fill(
    writer: CacheWriter,
    examples: Sequence[Example],
    encoder: Encoder,
    *,
    batch_size: int = BATCH_SIZE,
    advance: Callable[[], None] = lambda: None,
    own: slice = slice(None),
    leave_out: Callable[[str, str], None] | None = None,
) -> None:
    """Compute what is to do, or some of it. Images that can't be read are recorded and left out.

    Args:
        writer: the writer of the cache.
        examples: all images.
        encoder: the encoder.
        batch_size: images that are encoded together.
        advance: called after each image.
        own: which of the remaining images are computed here.
        leave_out: called with the images that can't be read, and why; by default the writer's method.
    """
    if not writer.to_do[own]:
        return
    leave_out = leave_out or writer.leave_out
    by_id = {example.image_id: example for example in examples}
    device = next(encoder.parameters()).device
    fast = folded(encoder)
    for batch in batches_read([by_id[i] for i in writer.to_do[own]], encoder.preprocessing, batch_size):
        read = {image_id: square for image_id, square in batch if not isinstance(square, ImageError)}
        for image_id, square in batch:
            if isinstance(square, ImageError):
                leave_out(image_id, str(square))
        if read:
            images = torch.from_numpy(normalise(np.stack(list(read.values())), encoder.preprocessing))
            with torch.inference_mode():
                features = fast(images.to(device))  # [B, N, D]
            writer.write(list(read), features.float().cpu().numpy())
        for _ in batch:
            advance()


def batches_read(
    examples: Sequence[Example], preprocessing: Preprocessing, batch_size: int
) -> Iterator[list[tuple[str, Square | ImageError]]]:
    """Image ids with their squares [S, S, 3], or with the error; a few batches are read ahead."""

    def square(example: Example) -> Square | ImageError:
        try:
            return resize(example.read(at_least=preprocessing.shorter_side), preprocessing)
        except ImageError as error:
            return error

    squares = done_ahead(square, examples, READING_THREADS, BATCHES_AHEAD * batch_size, "showtell-read")
    return in_batches(zip((example.image_id for example in examples), squares, strict=True), batch_size)


def fingerprint(encoder: Encoder) -> str:
    """A fingerprint of all that determines an image's features: network, weights, preprocessing, grid.

    The source of the weights does not count, nor the library version that described the network.
    """
    config = encoder.config.model_dump(mode="json", exclude={"name", "weights", "preprocessing", "stages"})
    for key in ("transformers_version", "_name_or_path"):
        for part in ("architecture", "queries"):
            (config.get(part) or {}).pop(key, None)
    digest = hashlib.sha256()
    digest.update(json.dumps([config, encoder.preprocessing.model_dump(mode="json")], sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    rows, columns = encoder.grid
    size = encoder.preprocessing.size
    return f"{short_name(encoder)}-{size}px-{rows}x{columns}x{encoder.width}-{digest.hexdigest()[:16]}"


def short_name(encoder: Encoder) -> str:
    """The encoder's name without the folders before it, fit for a file name."""
    return Path(encoder.config.name.replace(":", "-")).name


def default_folder(name: str, examples: Sequence[Example], encoder: Encoder) -> Path:
    """A folder in the user's cache folder for these images and this encoder."""
    images = hashlib.sha256()
    for example in examples:
        if example.mirrored:  # mirror images are in the folder of their originals
            continue
        images.update(f"{example.image_id} {example.container} {example.stamp}\n".encode())
    return cache_folder() / "features" / f"{name}-{images.hexdigest()[:8]}-{fingerprint(encoder)}"
