"""Beam search of every lite recipe's decoder: ours, the plain way, and Hugging Face's `generate`, in one process.

    python benchmarks/search.py

From the encoder's grid to captions, with random weights. Rules hold every caption to 12 steps, so that all do the same
number: 11 words, and one more step for `<end>`. The plain way is the textbook's: one image at a time, and `forward`
reads the whole prefix again at each step; the hypotheses of the image are one batch, and the image is read once.

`generate` searches with a `VisionEncoderDecoderModel` whose decoder is a GPT-2 of 2 layers, width 384; ours is a
Transformer of the same layers, heads and widths. `generate` gets the encoder's outputs, so that both only decode:
either as wide as the decoder, so that nothing is projected, or as wide as EfficientNet-Lite2's grid, which it projects
again at each step. Ours reads that grid through its neck in both cases.
Ours is as `TorchEngine.from_bundle` makes it, with its matrices packed for oneDNN; `generate` and the plain way use
`torch.nn.functional.linear`, which is slower on an AMD processor.

Times are medians of alternating runs, in ms an image.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import median_seconds, product_speed
from torch import Tensor, nn

from showtell.engines.torch import TorchEngine, with_packed_weights
from showtell.models.captioning_model import CaptioningModel, build_decoder
from showtell.models.decoder import Decoder, DecoderConfig
from showtell.models.transformer import TransformerConfig
from showtell.search import SearchOptions, search
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
N, D, V = 49, 1280, 2917  # EfficientNet-Lite2's grid at 224 pixels, and Flickr8k's words
BEAM, STEPS = 5, 12
BATCHES = (1, 16, 64)
SAME_SIZE = TransformerConfig(
    width=384,
    heads=6,
    feed_forward_width=1536,
    encoder_layers=0,
    decoder_layers=2,
    encode_size=7,
    norm="pre",
    activation="gelu",
    positions="learned",
)
VOCABULARY = Tokenizer.train([" ".join(map(str, range(V - 4)))], TokenizerConfig(min_count=1))


def our_search(decoder: Decoder, features: Tensor, beam: int) -> Callable[[], object]:
    """Our search for the captions of `[B, N, D]`, with the decoder as `TorchEngine.from_bundle` makes it."""
    ready = with_packed_weights(copy.deepcopy(decoder))
    engine = TorchEngine(CaptioningModel(nn.Identity(), ready))  # type: ignore[arg-type]  # it never encodes
    options = SearchOptions(beam=beam, min_words=STEPS - 1, max_words=STEPS - 1)
    grid = features.numpy()
    return lambda: search(engine, engine.memory_from_grid(grid), options, VOCABULARY)


def plain_search(decoder: Any, features: Tensor) -> Callable[[], list[int]]:
    """The textbook's beam search, without a cache, for the caption of one image `[1, N, D]`."""
    never = [VOCABULARY.pad, VOCABULARY.start, VOCABULARY.end, VOCABULARY.unk]

    @torch.inference_mode()
    def run() -> list[int]:
        memory = decoder.memory(features)
        words, totals = torch.full((1, 1), VOCABULARY.start), torch.zeros(1)
        for _ in range(STEPS - 1):
            log_probs = decoder(memory, words[None])[0, :, -1].log_softmax(-1)  # [K, V]
            log_probs[:, never] = -torch.inf
            totals, best = (totals[:, None] + log_probs).flatten().topk(BEAM)
            words = torch.cat([words[best // V], best[:, None] % V], 1)
        totals += decoder(memory, words[None])[0, :, -1].log_softmax(-1)[:, VOCABULARY.end]
        caption: list[int] = words[totals.argmax(), 1:].tolist()
        return caption

    return run


def generate_search(model: Any, features: Tensor) -> Callable[[], object]:
    """Hugging Face's `generate` for the captions of `[B, N, D]`."""
    from transformers.modeling_outputs import BaseModelOutput

    @torch.inference_mode()
    def run() -> object:
        outputs = BaseModelOutput(last_hidden_state=features)
        return model.generate(
            encoder_outputs=outputs, num_beams=BEAM, min_new_tokens=STEPS, max_new_tokens=STEPS, use_cache=True
        )

    return run


def generating_model(feature_width: int) -> Any:
    """A `VisionEncoderDecoderModel` of the size of ours; its encoder is never called."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    encoder = ViTConfig(
        hidden_size=feature_width, num_hidden_layers=1, num_attention_heads=1, intermediate_size=feature_width
    )
    decoder = GPT2Config(
        vocab_size=V,
        n_positions=SAME_SIZE.max_positions,
        n_embd=SAME_SIZE.width,
        n_layer=SAME_SIZE.decoder_layers,
        n_head=SAME_SIZE.heads,
        n_inner=SAME_SIZE.feed_forward_width,
        bos_token_id=VOCABULARY.start,
        eos_token_id=VOCABULARY.end,
        add_cross_attention=True,
    )
    model: Any = VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    special = model.generation_config
    special.pad_token_id, special.decoder_start_token_id, special.eos_token_id = 0, 1, 2
    special.bos_token_id = special.decoder_start_token_id
    return model.eval()


def median_milliseconds(runs: Sequence[Callable[[], object]], images: Sequence[int], repeats: int) -> list[float]:
    """The median time for an image, for each run."""
    return [1e3 * seconds / count for seconds, count in zip(median_seconds(runs, repeats), images, strict=True)]


def parameters(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(p.numel() for p in module.parameters())


def decoders() -> dict[str, DecoderConfig]:
    """The decoder of every lite recipe, and the Transformer at its full size."""
    paths = [*sorted(RECIPES.glob("*_lite.yaml")), RECIPES / "cnn_transformer.yaml"]
    return {path.stem: load_recipe(path).decoder for path in paths}


def print_decoders(repeats: int) -> None:
    """One line for each decoder: beam 5, greedy, and the plain way."""
    sizes = "".join(f"{batch:7}" for batch in BATCHES)
    ratios = ", ".join(f"{batch}" for batch in BATCHES)
    print(f"{'':40}   {f'beam {BEAM}, batch of':21}   {'greedy, batch of':21}   {f'beam {BEAM} / greedy'}")
    print(f"{'decoder':32}millions   {sizes}   {sizes}   batch of {BATCHES[1]:5}     plain   plain / ours: {ratios}")
    for name, config in decoders().items():
        decoder = build_decoder(config, D, V).eval()
        grids = [torch.randn(batch, N, D) for batch in BATCHES]
        runs = [our_search(decoder, grid, beam) for beam in (BEAM, 1) for grid in grids]
        times = median_milliseconds([*runs, plain_search(decoder, grids[0])], [*BATCHES, *BATCHES, 1], repeats)
        beam, greedy, plain = times[:3], times[3:6], times[6]
        columns = ["".join(f"{t:7.1f}" for t in of) for of in (beam, greedy)]
        ratios = ", ".join(f"{plain / t:.1f} x" for t in beam)
        print(
            f"{name:32}{parameters(decoder) / 1e6:8.1f}   {columns[0]}   {columns[1]}"
            f"   {beam[1] / greedy[1]:12.1f} x  {plain:8.1f}   {ratios}",
            flush=True,
        )


def print_generate(repeats: int) -> None:
    """One line for each batch: our Transformer and `generate` with a decoder of the same size."""
    import transformers

    decoder = build_decoder(SAME_SIZE, D, V).eval()
    models = [generating_model(width) for width in (SAME_SIZE.width, D)]
    print(
        f"\nTransformer of 2 layers, width {SAME_SIZE.width}: ours {parameters(decoder) / 1e6:.1f} million parameters, "
        f"GPT-2 in transformers {transformers.__version__} {parameters(models[0].decoder) / 1e6:.1f} million"
    )
    print(f"batch   ours   generate, features {SAME_SIZE.width} wide   {D} wide   generate / ours")
    for batch in BATCHES:
        grid = torch.randn(batch, N, D)
        runs = [
            our_search(decoder, grid, BEAM),
            generate_search(models[0], grid[..., : SAME_SIZE.width].contiguous()),
            generate_search(models[1], grid),
        ]
        ours, narrow, wide = median_milliseconds(runs, [batch] * 3, repeats)
        print(
            f"{batch:5}{ours:7.1f}{narrow:29.1f}{wide:12.1f}   {narrow / ours:.1f} x, {wide / ours:.1f} x", flush=True
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"N={N} D={D} V={V}, beam {BEAM}, {STEPS} steps, {torch.get_num_threads()} threads, ms an image")
    print(f"matrix products: {product_speed() / 1e9:.0f} GFLOP/s\n")
    print_decoders(options.repeats)
    print_generate(options.repeats)


if __name__ == "__main__":
    main()
