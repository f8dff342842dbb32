"""Captioning folders: cold start, images a second and memory of the engines, a plain loop, and BLIP-base.

    python benchmarks/caption.py runs/sat                       # a model or training run; it is exported first
    python benchmarks/caption.py runs/sat --exported models/sat --photos photos/ --count 200 --repeats 1

Every measurement runs in its own process, the systems take turns, and each figure is the median of the repeats. Photos
are the given ones, or random textures: resized to 224 pixels, and enlarged to 12 megapixels. Cold start is the whole
run of a process that captions one photo; images a second do not include it. Memory is the peak of the process (VmHWM).
The floor is the time of the encoder's operations at the speed of a large matrix product on the same cores, in float32
and in bfloat16, measured in turn with the rest.

    onnx               float32, the exported model as `showtell caption --engine onnx` runs it: a batch on each core
    onnx int8          int8, the same, exported with --int8
    onnx together      float32, the exported model, a batch at a time, each operation on all cores
    openvino           bfloat16 where the processor has it, as onnx
    openvino-float32   float32, as onnx
    pytorch            float32, the model in PyTorch, a batch at a time
    pytorch single     float32, the plain loop: one image after the other
    blip               float32, transformers' BLIP-base (384 pixels), random weights, beam 3, ten words, 8 at a time
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SYSTEMS = ("onnx", "onnx int8", "onnx together", "openvino", "openvino-float32", "pytorch", "pytorch single", "blip")
OPENVINO = ("openvino", "openvino-float32")
A_BATCH_A_CORE = ("onnx", "onnx int8", *OPENVINO)
SMALL, LARGE = (224, 224), (4000, 3000)
SLOW = {"pytorch single": 5, "blip": 50}  # these caption this many times fewer images
FEW = 100  # images after which memory is read for the first time

Figures = dict[str, float]


def main() -> None:
    """Measure all systems in turn and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or training run, with PyTorch weights for the rows of PyTorch")
    parser.add_argument("--exported", help="the same model, exported (by default it is exported now)")
    parser.add_argument("--photos", type=Path, help="folder of photos (by default random textures)")
    parser.add_argument("--count", type=int, default=1000, help="photos of 224 pixels")
    parser.add_argument("--large", type=int, default=100, help="photos of 12 megapixels; 0 leaves them out")
    parser.add_argument("--grain", type=int, default=12, help="of those: 12 makes files of 3.7 MB, 8 of 2.9, 4 of 1.7")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = sorted(options.photos.iterdir()) if options.photos else []
        few = max(1, min(options.large, 20))  # more would be a gigabyte
        make_photos(folder / "small", SMALL, options.count, sources, grain=0 if sources else 12)
        make_photos(folder / "large", LARGE, few, sources, grain=options.grain)
        models = dict.fromkeys(SYSTEMS, options.model)
        exported = options.exported or str(folder / "exported")
        models |= dict.fromkeys(("onnx", "onnx together", *OPENVINO), exported)
        models["onnx int8"] = str(folder / "int8")
        if options.exported is None:
            command("export", options.model, "--out", exported)
        if "onnx int8" in options.systems:
            command("export", options.model, "--out", models["onnx int8"], "--int8", "--photos", str(folder / "small"))
        taken: dict[str, list[Figures]] = {system: [] for system in (*options.systems, "floor")}
        for _ in range(options.repeats):
            taken["floor"].append(child("floor", options.model, folder, 0))
            for system in options.systems:
                taken[system].append(measured(system, models[system], folder, options.count, options.large))
        megabytes = statistics.mean(photo.stat().st_size for photo in (folder / "large").iterdir()) / 1e6
    report({system: medians(figures) for system, figures in taken.items()}, options.count, options.large, megabytes)


def measured(system: str, model: str, folder: Path, count: int, large: int) -> Figures:
    """One round of a system, each part in its own process."""
    fewer = SLOW.get(system, 1)
    photo = str(next((folder / "small").iterdir()))
    begin = time.perf_counter()
    if system in (*A_BATCH_A_CORE, "pytorch"):
        command("caption", photo, "--model", model, "--engine", engine_of(system))
    else:
        child(system, model, folder / "small", 1)
    figures = {"cold": time.perf_counter() - begin}
    figures |= child(system, model, folder / "small", max(1, count // fewer))
    if large:
        of_large = child(system, model, folder / "large", max(1, large // fewer))
        figures |= {f"large {name}": value for name, value in of_large.items()}
    return figures


def report(figures: dict[str, Figures], count: int, large: int, megabytes: float) -> None:
    """Print the table and the floor; `megabytes` is the size of a large photo's file."""
    floor = figures.pop("floor")
    seconds = floor["flops"] / floor["speed"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{cores} cores, {count:,} photos of 224 x 224 and {large:,} of 4000 x 3000 pixels, {megabytes:.1f} MB a file"
    )
    of_large = "   12 Mpixel: images/s, MB" if large else ""
    print(f"system             cold start, s   images/s   x single   x floor    peak MB (after {FEW}){of_large}")
    single = figures.get("pytorch single", {}).get("speed", float("nan"))
    for system, of_system in figures.items():
        speed = of_system["speed"]
        print(
            f"{system:18}{of_system['cold']:14.2f}{speed:11.1f}{speed / single:11.1f}{1 / (speed * seconds):10.2f}"
            f"{of_system['peak']:11.0f} ({of_system['few']:.0f})"
            + (f"{of_system['large speed']:21.1f}{of_system['large peak']:9.0f}" if large else "")
        )
    print(
        f"floor: the encoder's {floor['flops'] / 1e9:.2f} GFLOP an image at {floor['speed'] / 1e9:.0f} GFLOP/s "
        f"are {1 / seconds:.0f} images/s; in bfloat16, at {floor['bfloat16'] / 1e9:.0f} GFLOP/s, "
        f"{floor['bfloat16'] / floor['flops']:.0f}"
    )


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def make_photos(folder: Path, size: tuple[int, int], count: int, sources: Sequence[Path], *, grain: int) -> None:
    """JPEG files of a size, from the sources in turn or from random textures.

    What is enlarged is smoother than a photo and its file smaller: `grain` is noise against that, a range of levels.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        if sources:
            picture = Image.open(sources[number % len(sources)]).convert("RGB")
        else:
            picture = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        noise = random.integers(-grain, grain + 1, (size[1], size[0], 1), np.int16)
        picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:05}.jpg", quality=90)


def command(*arguments: str) -> None:
    """Run a showtell command in its own process."""
    code = "import sys; from showtell.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, check=True)


# What follows runs in the processes that are measured.


def child(system: str, model: str, folder: Path, count: int) -> Figures:
    """The figures that a new process measures for `count` photos of the folder, taken in turn."""
    arguments = [sys.executable, __file__, "--measure", system, model, str(folder), str(count)]
    answer = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(answer.stdout.splitlines()[-1])
    return figures


def measure(system: str, model: str, folder: str, count: str) -> None:
    """Print the figures of a system as JSON."""
    if system == "floor":
        print(json.dumps(floor_of(model)))
        return
    photos = islice(cycle(sorted(Path(folder).iterdir())), int(count))
    captions = blip(photos) if system == "blip" else ours(system, model, photos)
    next(captions)  # everything is loaded now
    few = peak_megabytes()
    begin = time.perf_counter()
    for number, _ in enumerate(captions, 1):
        if number == FEW:
            few = peak_megabytes()
    speed = int(count) / (time.perf_counter() - begin)
    print(json.dumps({"speed": speed, "few": few, "peak": peak_megabytes()}))


def ours(system: str, model: str, photos: Iterator[Path]) -> Iterator[Any]:
    """Yield None when the model is loaded, then the captions of one photo after the other."""
    from showtell import load

    captioner = load(model, threads=1 if system in A_BATCH_A_CORE else None, engine=engine_of(system))
    yield None
    if system == "pytorch single":
        for photo in photos:
            yield captioner(photo, attention=False)
    else:
        yield from captioner.stream(photos)


def engine_of(system: str) -> Any:
    """The engine that runs a system's model."""
    return system if system in OPENVINO else "onnx" if system.startswith("onnx") else "auto"


def blip(photos: Iterator[Path]) -> Iterator[Any]:
    """As `ours`, by transformers' BLIP-base."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    from showtell.images.decode import Preprocessing, prepare, read_image

    model: Any = BlipForConditionalGeneration(BlipConfig())
    model.eval()
    seen = Preprocessing(size=384, resize="squash")
    yield None
    while batch := list(islice(photos, 8)):
        images = torch.from_numpy(prepare([read_image(photo, at_least=384) for photo in batch], seen))
        with torch.inference_mode():
            yield from model.generate(pixel_values=images, num_beams=3, min_new_tokens=10, max_new_tokens=10)


def floor_of(model: str) -> Figures:
    """Operations of the encoder for one image, and operations a second of a matrix product."""
    import torch
    from timing import product_speed
    from torch.utils.flop_counter import FlopCounterMode

    from showtell.bundle import load_bundle
    from showtell.models.encoders import build_encoder

    encoder = build_encoder(load_bundle(model).config.encoder, pretrained=False)
    size = encoder.preprocessing.size
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.zeros(1, 3, size, size))
    return {
        "flops": float(counter.get_total_flops()),
        "speed": product_speed(),
        "bfloat16": product_speed(torch.bfloat16),
    }


def peak_megabytes() -> float:
    """The most memory that this process has had; unlike `getrusage`, without what its parent had before."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main()
