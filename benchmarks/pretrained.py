"""BLIP in its real size with random weights: showtell beside transformers' `generate`, in one process.

    python benchmarks/pretrained.py                  # 64 photos, beam 5: an hour on two cores
    python benchmarks/pretrained.py --photos 4 --runs 1 --keep DIR
    python benchmarks/pretrained.py --sizes          # what each model needs, by arithmetic alone

The model is BLIP-base: a ViT-B/16 that sees 384 pixels (577 cells), and 12 layers of BERT. Rules hold every caption to
`STEPS` pieces, so that all do the same number of steps. The photos are noise: their content does not change the cost.
The decoder's batch of 16 repeats the encoded grids of 4 photos 4 times. The peak of memory is that of a fresh process
that loads the model and captions this batch; photos are encoded 4 at a time, as ONNX Runtime does in showtell.

The floor is computed: the products of the ViT and of the decoder's steps at the speed of a large matrix product on
this machine, without any other cost.
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
from showtell.captioner import EngineName, load
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


class Theirs:
    """BLIP as transformers runs it: `generate` is these two, one after the other."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self.model: Any = transformers.BlipForConditionalGeneration.from_pretrained(folder)
        self.model.train(False)

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> torch.Tensor:
        """Photos -> the ViT's tokens `[B, N, D]`."""
        cells: torch.Tensor = self.model.vision_model(pixel_values=torch.from_numpy(images))[0]
        return cells

    @torch.inference_mode()
    def decode(self, cells: torch.Tensor) -> object:
        """The captions of encoded photos."""
        config = self.model.config.text_config
        return self.model.text_decoder.generate(
            input_ids=torch.full((len(cells), 1), config.bos_token_id),
            eos_token_id=config.sep_token_id,
            pad_token_id=config.pad_token_id,
            encoder_hidden_states=cells,
            encoder_attention_mask=torch.ones(cells.shape[:2], dtype=torch.long),
            num_beams=BEAM,
            do_sample=False,
            min_new_tokens=STEPS,
            max_new_tokens=STEPS,
        )


class Ours:
    """The same model in showtell; encoding computes the keys and values of all layers."""

    def __init__(self, folder: Path, engine: EngineName) -> None:
        self.captioner = load(folder, engine=engine)
        self.options = self.captioner.options(beam=BEAM, min_words=STEPS - 1, max_words=STEPS - 1)

    def encode(self, images: np.ndarray) -> Any:
        return self.captioner.engine.encode(images)

    def decode(self, memory: Any) -> object:
        return search(self.captioner.engine, memory, self.options, self.captioner.tokenizer)


def loaded(folder: Path, engine: EngineName | None) -> Theirs | Ours:
    """The model in a folder, run by one of showtell's engines; by transformers if none is given."""
    return Theirs(folder) if engine is None else Ours(folder, engine)


def repeated(seen: Any, times: int) -> Any:
    """The encoding of some photos, repeated as if there were that many times more."""
    if isinstance(seen, dict):
        return {name: repeated(array, times) for name, array in seen.items()}
    return torch.cat([seen] * times) if isinstance(seen, torch.Tensor) else np.concatenate([seen] * times)


def measured(model: Theirs | Ours, images: np.ndarray) -> tuple[Callable[[], object], ...]:
    """Time the encoding of the photos, and the decoding of one and of 16."""
    alone, batch = model.encode(images[:1]), repeated(model.encode(images[:4]), 4)
    return lambda: model.encode(images), lambda: model.decode(alone), lambda: model.decode(batch)


PEAK = """
import re, sys
sys.path.insert(0, {here!r})
import numpy as np
from pathlib import Path
import pretrained
images = np.random.default_rng(0).normal(size=(4, 3, 384, 384)).astype("float32")
model = pretrained.loaded(Path({folder!r}), {engine!r})
model.decode(pretrained.repeated(model.encode(images), 4))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6)
"""


def peak_gb(folder: Path, engine: EngineName | None) -> float:
    """The most memory that a fresh process takes for a batch of 16, in GB; on Linux only."""
    code = PEAK.format(here=str(Path(__file__).parent), folder=str(folder), engine=engine)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def floor_seconds() -> tuple[float, float]:
    """Seconds for the ViT's and the decoder's products for one image, at this machine's speed."""
    cells, width, layers, text = 577, 768, 12, 768
    vision = layers * (12 * width * width * cells + 2 * cells * cells * width) + 576 * 768 * width
    keys = layers * 2 * width * text * cells
    step = layers * (14 * text * text + 2 * cells * text) + text * (PIECES + 2) + text * text
    speed = product_speed()  # multiplications and additions a second
    return 2 * (vision + keys) / speed, 2 * step * BEAM * STEPS / speed


def vit_products(vision: Any) -> tuple[int, int]:
    """A ViT's tokens, and the multiplications for a photo."""
    cells, width = (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size
    layer = cells * (4 * width**2 + 2 * width * vision.intermediate_size) + 2 * cells**2 * width
    return cells, vision.num_hidden_layers * layer + (cells - 1) * 3 * vision.patch_size**2 * width


def sizes() -> None:
    """Print what each model needs: parameters, memory, and multiplications and additions of a photo."""
    import transformers

    library: Any = transformers
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    opt = {"model_type": "opt", "hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "vocab_size": 50304}
    opt |= {"num_attention_heads": 32, "word_embed_proj_dim": 2560}
    gpt2 = library.GPT2Config(add_cross_attention=True, is_decoder=True)
    both = library.VisionEncoderDecoderConfig.from_encoder_decoder_configs(library.ViTConfig(), gpt2)
    text = 4 * 768**2 + 2 * 768 * 3072  # a layer of BERT or GPT-2, a token
    models = {
        "BLIP base": library.BlipForConditionalGeneration(library.BlipConfig()),
        "BLIP large": library.BlipForConditionalGeneration(
            library.BlipConfig(vision_config=large, text_config={"encoder_hidden_size": 1024})
        ),
        "GIT base": library.GitForCausalLM(library.GitConfig()),
        "GIT large": library.GitForCausalLM(library.GitConfig(vision_config={**large, "patch_size": 14})),
        "ViT-GPT2": library.VisionEncoderDecoderModel(both),
        "BLIP-2, OPT 2.7B": library.Blip2ForConditionalGeneration(library.Blip2Config(text_config=opt)),
    }
    print("| model | parameters, millions | weights, GB | encoder, 10^9 | decoder, 10^9 | seconds at 100 x 10^9 |")
    print("|---|---|---|---|---|---|")
    for name, model in models.items():
        cells, photo = vit_products(getattr(model.config, "vision_config", None) or model.config.encoder)
        width = (getattr(model.config, "vision_config", None) or model.config.encoder).hidden_size
        if name.startswith("BLIP-2"):
            layer = 4 * 2560**2 + 2 * 2560 * 10240
            photo += 12 * 32 * text + 6 * 2 * cells * width * 768 + 32 * 32 * layer
            word = 32 * (layer + 2 * 32 * 2560) + 2560 * 50304
        elif name.startswith("GIT"):
            photo += 6 * (cells * text + 2 * cells**2 * 768) + cells * width * 768
            word = 6 * (text + 2 * cells * 768) + 768 * PIECES
        else:
            photo += 12 * 2 * cells * width * 768
            word = 12 * (text + 2 * 768**2 + 2 * cells * 768) + 768 * model.get_input_embeddings().num_embeddings
        word *= BEAM * STEPS
        number = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"| {name} | {number / 1e6:,.0f} | {4 * number / 1e9:.1f} | {2 * photo / 1e9:.0f} | {2 * word / 1e9:.0f} "
            f"| {2 * (photo + word) / 1e11:.1f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=64, help="photos to encode; 4 or more")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--keep", metavar="DIR", help="leave the models there, for the next run")
    arguments = parser.parse_args()
    if arguments.sizes:
        with torch.device("meta"):
            return sizes()
    images = np.random.default_rng(0).normal(size=(arguments.photos, 3, 384, 384)).astype(np.float32)
    with tempfile.TemporaryDirectory() as place:
        folder, exported, rounded = (Path(arguments.keep or place) / name for name in ("blip", "onnx", "int8"))
        if not folder.exists():
            write_blip(folder)
        if not exported.exists():
            export(load_bundle(folder), exported)
        if not rounded.exists():
            export(load_bundle(folder), rounded, calibration=images[:16])
        models: dict[str, tuple[Path, EngineName | None]] = {
            "`generate`": (folder, None),
            "PyTorch": (folder, "torch"),
            "ONNX Runtime": (exported, "onnx"),
            "ONNX Runtime, int8": (rounded, "onnx"),
            "OpenVINO, bfloat16": (exported, "openvino"),
        }
        runs = [run for where, engine in models.values() for run in measured(loaded(where, engine), images)]
        seconds = iter(median_seconds(runs, arguments.runs))
        peaks = [peak_gb(where, engine) for where, engine in models.values()]
    print(f"ms a photo, {arguments.photos} photos, beam {BEAM}, {STEPS} steps\n")
    print("| | encoder | decoder, batch 1 | decoder, batch 16 | whole, batch 16 | decoder x | whole x | peak GB |")
    print("|---|---|---|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for name, peak in zip(models, peaks, strict=True):
        encoder, alone, decoder = next(seconds) / arguments.photos, next(seconds), next(seconds) / 16
        whole = encoder + decoder
        first = first or (decoder, whole)
        print(
            f"| {name} | {1e3 * encoder:.0f} | {1e3 * alone:.0f} | {1e3 * decoder:.0f} | {1e3 * whole:.0f} "
            f"| {first[0] / decoder:.1f} | {first[1] / whole:.2f} | {peak:.1f} |"
        )
    vision, steps = floor_seconds()
    print(f"\nfloor: encoder {1e3 * vision:.0f} ms, decoder {1e3 * steps:.0f} ms a photo")


if __name__ == "__main__":
    main()
