"""BLIP of its real size with random weights: showtell beside transformers' `generate`, in one process.

    python benchmarks/pretrained.py                  # 64 photos, beam 5: half an hour on two cores
    python benchmarks/pretrained.py --photos 16

The model is BLIP-base: a ViT-B/16 that sees 384 pixels (577 cells), and 12 layers of BERT. Rules hold every caption to
`STEPS` pieces, so that all do the same number of steps. The photos are noise: what they show costs nothing. The peak of
memory is a fresh process's that loads the model and captions one batch.

The floor is arithmetic: the products of the ViT and of the decoder's steps at the speed of a large product of matrices
on this machine, with nothing lost on the way.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import median_seconds, product_speed

from showtell.bundle import load_bundle
from showtell.captioner import Captioner, load
from showtell.export.graphs import export
from showtell.search import search

BEAM, STEPS = 5, 12
PIECES = 30_522


def write_blip(folder: Path) -> None:
    """BLIP-base with random weights, as `save_pretrained` writes it."""
    import transformers
    from tokenizers import BertWordPieceTokenizer

    torch.manual_seed(0)
    config = transformers.BlipConfig()
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    special = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"word{n}" for n in range(PIECES - len(special))]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]) + "\n")
    table = BertWordPieceTokenizer(str(folder / "vocab.txt"))
    library: Any = transformers
    library.PreTrainedTokenizerFast(
        tokenizer_object=table._tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    processor = {"size": {"height": 384, "width": 384}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def by_generate(model: Any, images: torch.Tensor, batch: int) -> Callable[[], object]:
    """What transformers does for all images."""

    def run() -> None:
        with torch.inference_mode():
            for first in range(0, len(images), batch):
                model.generate(
                    pixel_values=images[first : first + batch],
                    num_beams=BEAM,
                    do_sample=False,
                    min_new_tokens=STEPS,
                    max_new_tokens=STEPS,
                )

    return run


def by_showtell(captioner: Captioner, images: np.ndarray, batch: int) -> Callable[[], object]:
    """What showtell does for all images."""
    options = captioner.options(beam=BEAM, min_words=STEPS - 1, max_words=STEPS - 1)

    def run() -> None:
        for first in range(0, len(images), batch):
            memory = captioner.engine.encode(images[first : first + batch])
            search(captioner.engine, memory, options, captioner.tokenizer)

    return run


def encoding(model: Any, images: torch.Tensor) -> Callable[[], object]:
    """The ViT alone, as transformers runs it."""

    def run() -> None:
        with torch.inference_mode():
            for first in range(0, len(images), 16):
                model.vision_model(pixel_values=images[first : first + 16])

    return run


def encoding_ours(captioner: Captioner, images: np.ndarray) -> Callable[[], object]:
    """The ViT alone, and the keys and values of what it saw."""

    def run() -> None:
        for first in range(0, len(images), 16):
            captioner.engine.encode(images[first : first + 16])

    return run


PEAK = """
import resource, sys
sys.path.insert(0, {here!r})
import numpy as np
images = np.random.default_rng(0).normal(size=(16, 3, 384, 384)).astype("float32")
if {kind!r} == "generate":
    import pretrained, torch, transformers
    model = transformers.BlipForConditionalGeneration.from_pretrained({folder!r}).eval()
    pretrained.by_generate(model, torch.from_numpy(images), 16)()
else:
    import showtell
    from showtell.search import search
    captioner = showtell.load({folder!r}, engine={kind!r})
    options = captioner.options(beam=5, min_words=11, max_words=11)
    search(captioner.engine, captioner.engine.encode(images), options, captioner.tokenizer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def peak_gb(kind: str, folder: Path) -> float:
    """The most memory that a fresh process takes for a batch of 16, in GB."""
    code = PEAK.format(here=str(Path(__file__).parent), kind=kind, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def floor_seconds() -> tuple[float, float]:
    """Of an image: the ViT's products and the decoder's, at this machine's speed of products."""
    cells, width, layers, text = 577, 768, 12, 768
    vision = layers * (12 * width * width * cells + 2 * cells * cells * width) + 576 * 768 * width
    keys = layers * 2 * width * text * cells
    step = layers * (14 * text * text + 2 * cells * text) + text * (PIECES + 2) + text * text
    speed = product_speed()  # multiplications and additions a second
    return 2 * (vision + keys) / speed, 2 * step * BEAM * STEPS / speed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    import transformers

    with tempfile.TemporaryDirectory() as place:
        folder, exported, rounded = (Path(place) / name for name in ("blip", "onnx", "int8"))
        write_blip(folder)
        images = np.random.default_rng(0).normal(size=(arguments.photos, 3, 384, 384)).astype(np.float32)
        export(load_bundle(folder), exported)
        export(load_bundle(folder), rounded, calibration=images[:16])
        model: Any = transformers.BlipForConditionalGeneration.from_pretrained(folder)
        model.eval()
        ours = {
            "PyTorch": load(folder),
            "ONNX Runtime": load(exported, engine="onnx"),
            "ONNX Runtime, int8": load(rounded, engine="onnx"),
        }
        works = {"generate": {batch: by_generate(model, torch.from_numpy(images), batch) for batch in (1, 16)}}
        works |= {name: {batch: by_showtell(one, images, batch) for batch in (1, 16)} for name, one in ours.items()}
        encoders = {"generate": encoding(model, torch.from_numpy(images))}
        encoders |= {name: encoding_ours(one, images) for name, one in ours.items()}
        every = [*encoders.values(), *(work for of_batch in works.values() for work in of_batch.values())]
        seconds = [each / arguments.photos for each in median_seconds(every, arguments.runs)]
        of_encoders = dict(zip(encoders, seconds, strict=False))
        rest = iter(seconds[len(encoders) :])
        whole = {name: {batch: next(rest) for batch in of_batch} for name, of_batch in works.items()}
        peaks = {"generate": peak_gb("generate", folder), "PyTorch": peak_gb("torch", folder)}
        peaks |= {"ONNX Runtime": peak_gb("onnx", exported), "ONNX Runtime, int8": peak_gb("onnx", rounded)}
    print(f"ms a photo, beam {BEAM}, {STEPS} steps; batches of 1 and 16\n")
    print("| | batch 1 | batch 16 | encoder | decoder | whole, times generate | decoder, times | peak GB |")
    print("|---|---|---|---|---|---|---|---|")
    base = whole["generate"][16] - of_encoders["generate"]
    for name, of_batch in whole.items():
        decoder = of_batch[16] - of_encoders[name]
        print(
            f"| {name} | {1e3 * of_batch[1]:.0f} | {1e3 * of_batch[16]:.0f} | {1e3 * of_encoders[name]:.0f} "
            f"| {1e3 * decoder:.0f} | {whole['generate'][16] / of_batch[16]:.2f} | {base / decoder:.2f} "
            f"| {peaks[name]:.1f} |"
        )
    vision, steps = floor_seconds()
    print(f"\nfloor: encoder {1e3 * vision:.0f} ms, decoder {1e3 * steps:.0f} ms a photo")


if __name__ == "__main__":
    main()
