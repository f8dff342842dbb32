"""Captioners of `transformers`, small and with random weights, as `save_pretrained` writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

SIZE = 32
SHARPER = 3.0
WORDS = [
    "a",
    "an",
    "the",
    "red",
    "green",
    "blue",
    "yellow",
    "square",
    "circle",
    "triangle",
    "dog",
    "cat",
    "ball",
    "man",
    "woman",
    "of",
    "on",
    "in",
    "at",
    "is",
    "and",
    "left",
    "right",
    "above",
    "below",
    "big",
    "small",
    "run",
    "play",
    "##s",
    "##ing",
    "##ed",
    "t",
    "shirt",
    "-",
    "'",
    ".",
    ",",
    "picture",
    "photo",
    "gi",
    "##raf",
    "##fe",
]
CAPTIONS = [
    "a red square above a blue circle",
    "the small dog is playing in the grass",
    "a picture of a giraffe and a cat",
    "two women are running at the left of a ball",
]
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": SIZE, "patch_size": 8}
TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}


def word_pieces(folder: Path) -> Any:
    """BERT's kind of tokenizer."""
    pieces = ["[PAD]", *(f"[unused{n}]" for n in range(3)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    pieces += [
        mark + letter for mark in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz" if mark + letter not in WORDS
    ]
    file = folder / "vocab.txt"
    file.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    table = tokenizers.BertWordPieceTokenizer(str(file), lowercase=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(table.to_str()),
        unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def byte_pieces(specials: dict[str, str]) -> Any:
    """GPT-2's and OPT's kind of tokenizer."""
    table = tokenizers.Tokenizer(models.BPE())
    table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(dict.fromkeys(specials.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    table.train_from_iterator(CAPTIONS * 3, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=table, **specials)


def blip(folder: Path) -> Any:
    words = word_pieces(folder)
    text = transformers.BlipTextConfig(
        **TEXT, vocab_size=len(words) + 2, encoder_hidden_size=32, max_position_embeddings=40, is_decoder=True,
        bos_token_id=len(words), eos_token_id=2, sep_token_id=words.sep_token_id, pad_token_id=0,
    )  # fmt: skip
    vision = transformers.BlipVisionConfig(**VISION)
    config = transformers.BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    return transformers.BlipForConditionalGeneration(config), words


def git(folder: Path) -> Any:
    words = word_pieces(folder)
    config = transformers.GitConfig(
        **TEXT, vocab_size=len(words), max_position_embeddings=64, vision_config=VISION,
        bos_token_id=words.cls_token_id, eos_token_id=words.sep_token_id, pad_token_id=0,
    )  # fmt: skip
    return transformers.GitForCausalLM(config), words


def vit_gpt2(folder: Path) -> Any:
    end = "<|endoftext|>"
    words = byte_pieces({"bos_token": end, "eos_token": end, "pad_token": end})
    text = transformers.GPT2Config(
        vocab_size=len(words), n_positions=48, n_embd=24, n_layer=2, n_head=3, add_cross_attention=True,
        is_decoder=True, bos_token_id=words.eos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    return encoder_decoder(text, words, words.eos_token_id)


def vit_bert(folder: Path) -> Any:
    words = word_pieces(folder)
    text = transformers.BertConfig(
        **TEXT, vocab_size=len(words), max_position_embeddings=40, add_cross_attention=True, is_decoder=True
    )
    return encoder_decoder(text, words, words.cls_token_id, end=words.sep_token_id)


def encoder_decoder(text: Any, words: Any, start: int, end: int | None = None) -> Any:
    vision = transformers.ViTConfig(**VISION)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    model = transformers.VisionEncoderDecoderModel(config)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = start
        settings.eos_token_id = words.eos_token_id if end is None else end
        settings.pad_token_id = words.pad_token_id
    return model, words


def blip2(folder: Path) -> Any:
    words = byte_pieces({"bos_token": "</s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "</s>"})
    words.add_tokens(["<image>"])
    text = transformers.OPTConfig(
        vocab_size=len(words) + 3, hidden_size=24, ffn_dim=40, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=48, word_embed_proj_dim=24, do_layer_norm_before=True, bos_token_id=words.bos_token_id,
        eos_token_id=words.convert_tokens_to_ids("Ċ"), pad_token_id=words.pad_token_id,
    )  # fmt: skip
    queries = {**TEXT, "hidden_size": 24, "encoder_hidden_size": 32, "cross_attention_frequency": 2, "vocab_size": 9}
    config = transformers.Blip2Config(
        vision_config=VISION, qformer_config=queries, text_config=text.to_dict(), num_query_tokens=6,
        image_token_index=len(words) - 1,
    )  # fmt: skip
    return transformers.Blip2ForConditionalGeneration(config), words


CAPTIONERS: dict[str, Callable[[Path], Any]] = {
    "blip": blip,
    "git": git,
    "vit_gpt2": vit_gpt2,
    "vit_bert": vit_bert,
    "blip2": blip2,
}


def start_and_end(name: str, model: Any, words: Any) -> tuple[int, int]:
    """The ids that begin and end captions."""
    if name == "blip2":
        return words.bos_token_id, words.convert_tokens_to_ids("Ċ")
    if name == "vit_gpt2":
        return words.bos_token_id, words.eos_token_id
    return model.config.text_config.bos_token_id if name == "blip" else words.cls_token_id, words.sep_token_id


def some_images(count: int = 64) -> torch.Tensor:
    """Patches of random colours, `[B, 3, S, S]`, the same each time."""
    colours = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return colours.repeat_interleave(SIZE // 4, 2).repeat_interleave(SIZE // 4, 3)


def teach(name: str, model: Any, words: Any, steps: int) -> None:
    """Let it learn a caption of random pieces for each of `some_images`, so that what it says ends."""
    images = some_images()
    start, end = start_and_end(name, model, words)
    # Not all of the vocabulary, or nobody would ever begin alike; and no token that is special.
    some = torch.randperm(len(words) - 10)[:24] + 8
    ids = torch.full((len(images), 12), end)
    ids[:, 0] = start
    real = torch.ones_like(ids)
    for row, length in enumerate(torch.randint(3, 10, (len(images),)).tolist()):
        ids[row, 1 : length + 1] = some[torch.randint(0, len(some), (length,))]
        real[row, length + 2 :] = 0
    labels = ids.where(real > 0, -100)
    inputs: dict[str, Any] = {"pixel_values": images, "labels": labels}
    if name in ("blip", "git"):
        inputs |= {"input_ids": ids, "attention_mask": real}
    elif name == "blip2":
        cells = torch.full((len(images), model.config.num_query_tokens), model.config.image_token_id)
        inputs["input_ids"] = torch.cat([cells, ids], 1)
        inputs["attention_mask"] = torch.cat([torch.ones_like(cells), real], 1)
        inputs["labels"] = torch.cat([torch.full_like(cells, -100), labels], 1)
    else:
        inputs["labels"] = labels[:, 1:]
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(**inputs).loss.backward()
        optimiser.step()


def last_parts(name: str, model: Any) -> list[Any]:
    """What scales all scores of words: the last layer norm, or an output that is no embedding."""
    if name == "git":
        return [model.output]
    if name == "vit_gpt2":
        return [model.decoder.transformer.ln_f]
    if name == "blip2":
        return [model.language_model.model.decoder.final_layer_norm]
    head = (model.text_decoder if name == "blip" else model.decoder).cls.predictions
    return [head.transform.LayerNorm]


def write(name: str, folder: Path, steps: int = 80) -> Any:
    """Write a captioner that has learnt for so many steps, and return it."""
    torch.manual_seed(sum(map(ord, name)))
    folder.mkdir(parents=True, exist_ok=True)
    model, words = CAPTIONERS[name](folder)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):  # zero in a fresh model, where a mistake would not show
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    teach(name, model, words, steps)
    with torch.no_grad():  # sharper: no tie decides
        for part in last_parts(name, model):
            part.weight *= SHARPER
            part.bias *= SHARPER
    model.eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    processor = {"image_processor_type": "BlipImageProcessor", "size": {"height": SIZE, "width": SIZE}, "resample": 3}
    mean = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, **mean, "do_resize": True}))
    return model
