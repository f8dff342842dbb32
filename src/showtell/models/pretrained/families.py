"""Captioners of `transformers` as showtell models: the options and weights for each of them.

Ids change on the way: showtell's first four are `<pad> <start> <end> <unk>`, and id i of the model becomes i + 4. The
four take the rows of the model's own special tokens, whose old ids can't be said any more. Nothing else changes, so the
probabilities are those of the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from showtell.errors import BundleError
from showtell.models.pretrained.decoder import PretrainedConfig
from showtell.tokenizer import SPECIALS

Names = Mapping[str, tuple[str, ...]]
NEVER = -100.0
"""The output bias of an id that can't be said. Much lower, it would dominate the loss with label smoothing."""

BERT: Names = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "words_output": ("attention.output.dense",),
    "around_words.norm": ("attention.output.LayerNorm",),
    "image_query": ("crossattention.self.query",),
    "image_key_value": ("crossattention.self.key", "crossattention.self.value"),
    "image_output": ("crossattention.output.dense",),
    "around_image.norm": ("crossattention.output.LayerNorm",),
    "feed_forward.0": ("intermediate.dense",),
    "feed_forward.3": ("output.dense",),
    "around_feed_forward.norm": ("output.LayerNorm",),
}
GPT2: Names = {
    "around_words.norm": ("ln_1",),
    "query_key_value": ("attn.c_attn",),
    "words_output": ("attn.c_proj",),
    "around_image.norm": ("ln_cross_attn",),
    "image_query": ("crossattention.q_attn",),
    "image_key_value": ("crossattention.c_attn",),
    "image_output": ("crossattention.c_proj",),
    "around_feed_forward.norm": ("ln_2",),
    "feed_forward.0": ("mlp.c_fc",),
    "feed_forward.3": ("mlp.c_proj",),
}
OPT: Names = {
    "around_words.norm": ("self_attn_layer_norm",),
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "words_output": ("self_attn.out_proj",),
    "around_feed_forward.norm": ("final_layer_norm",),
    "feed_forward.0": ("fc1",),
    "feed_forward.3": ("fc2",),
}
"""The name of each part of a layer there; several names are joined."""

ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


@dataclass(frozen=True)
class Captioner:
    """A captioner of transformers, split into showtell's parts."""

    vision: Any
    """The vision module, for `CaptionerVision`."""
    config: PretrainedConfig
    weights: dict[str, Tensor]
    """The decoder's weights, already with showtell's ids."""
    specials: dict[str, int | None]
    """The model's own id for each of `SPECIALS`."""


def captioner_of(model: Any, unk: int | None) -> Captioner:
    """The parts of a loaded model.

    Args:
        model: an instance of a class in `FAMILIES`.
        unk: the tokenizer's id for unknown words, if it has one.

    Raises:
        BundleError: it has an option that showtell does not support.
    """
    return FAMILIES[type(model).__name__](model, unk)


def blip(model: Any, unk: int | None) -> Captioner:
    """BLIP (Li et al. 2022): a ViT, and BERT with attention to its tokens."""
    text = model.config.text_config
    weights = model.text_decoder.state_dict()
    options = {**bert_options(text), "before_grid": 1}
    found = bert_weights(weights, "bert.", options["layers"]) | head_of(weights)
    specials = special_ids(text, unk, start=text.bos_token_id, end=text.sep_token_id)
    return put_together(model.vision_model, options, found, specials)


def git(model: Any, unk: int | None) -> Captioner:
    """GIT (Wang et al. 2022): the tokens of a ViT come before the words of one Transformer."""
    config = model.config
    weights = model.state_dict()
    options = {
        **bert_options(config),
        "image": "prefix",
        "projection": "linear_norm",
        "projection_epsilon": config.vision_config.layer_norm_eps,
        "before_grid": 1,
    }
    found = bert_weights(weights, "git.", options["layers"])
    for part in ("weight", "bias"):
        found[f"projection.0.{part}"] = weights[f"git.visual_projection.visual_projection.0.{part}"]
        found[f"projection.1.{part}"] = weights[f"git.visual_projection.visual_projection.1.{part}"]
    found |= {"output_weight": weights["output.weight"], "output_bias": weights["output.bias"]}
    return put_together(model.git.image_encoder, options, found, special_ids(model.generation_config, unk))


def vision_encoder_decoder(model: Any, unk: int | None) -> Captioner:
    """Any backbone of images, and GPT-2, BERT or RoBERTa with attention to its tokens."""
    text, weights = model.config.decoder, model.decoder.state_dict()
    if text.model_type == "gpt2":
        options, found = gpt2_options(text), gpt2_weights(weights)
    else:
        options = bert_options(text)
        found = bert_weights(weights, f"{text.model_type}.", options["layers"], unused(text)) | head_of(weights)
        options["max_positions"] -= unused(text)
    if hasattr(model, "enc_to_dec_proj"):
        options["projection"] = "linear"
        found |= {f"projection.{part}": getattr(model.enc_to_dec_proj, part) for part in ("weight", "bias")}
    start = model.generation_config.decoder_start_token_id
    start = model.config.decoder_start_token_id if start is None else start
    return put_together(model.encoder, options, found, special_ids(model.generation_config, unk, start=start))


def blip2(model: Any, unk: int | None) -> Captioner:
    """BLIP-2 (Li et al. 2023) with OPT: a few queries about the image come before the words of a language model."""
    text = model.config.text_config
    if text.word_embed_proj_dim != text.hidden_size or not text.do_layer_norm_before or not text.enable_bias:
        raise BundleError("This BLIP-2 has an OPT of a kind that showtell can't read.", "Use one with OPT-2.7b.")
    weights = model.language_model.state_dict()
    cells, offset = model.config.num_query_tokens, 2
    table = weights["model.decoder.embed_positions.weight"][offset:]
    options = {
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "feed_forward_width": text.ffn_dim,
        "norm": "pre",
        "activation": activation_of(text.activation_function),
        "dropout": text.dropout,
        "image": "prefix",
        "prefix_causal": True,
        "prefix_positions": cells,
        "max_positions": len(table) - cells,
        "last_norm": True,
        "before_grid": None,
    }
    found = {
        "embedding.weight": weights["model.decoder.embed_tokens.weight"],
        "cell_positions": table[:cells],
        "positions.weight": table[cells:],
        "output_weight": weights["lm_head.weight"],
        **{f"last_norm.{part}": weights[f"model.decoder.final_layer_norm.{part}"] for part in ("weight", "bias")},
        **layer_weights(weights, "model.decoder.layers.", OPT, text.num_hidden_layers),
    }
    end = model.language_model.generation_config.eos_token_id
    return put_together(model, options, found, special_ids(text, unk, end=text.eos_token_id if end is None else end))


FAMILIES: dict[str, Callable[[Any, int | None], Captioner]] = {
    "BlipForConditionalGeneration": blip,
    "GitForCausalLM": git,
    "VisionEncoderDecoderModel": vision_encoder_decoder,
    "Blip2ForConditionalGeneration": blip2,
}
"""By the class of transformers that a model's config.json names under `architectures`."""
WRITERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "VisionEncoderDecoderModel": ("decoder", ("gpt2", "bert", "roberta")),
    "Blip2ForConditionalGeneration": ("text_config", ("opt",)),
}
"""Where config.json describes the text half, if there are several kinds, and the kinds that showtell reads."""


# -------------------------------------------------------------------- parts


def put_together(
    vision: Any, options: dict[str, Any], weights: dict[str, Tensor], specials: dict[str, int | None]
) -> Captioner:
    """The captioner, with showtell's ids."""
    output = weights.setdefault("output_weight", weights["embedding.weight"])
    bias = weights.get("output_bias", torch.zeros(len(output)))
    options["tied"] = output is weights["embedding.weight"] or torch.equal(output, weights["embedding.weight"])
    firsts = [specials[name] for name in SPECIALS]
    rows = [0 if id is None else id for id in firsts]
    said = torch.ones(len(SPECIALS), dtype=torch.bool)
    seen: set[int | None] = {None}
    for place in (2, 3, 1, 0):  # if tokens are the same to the model, it is `<end>` that is said
        said[place] = firsts[place] not in seen
        seen.add(firsts[place])
    others = bias.clone()
    others[[id for id in firsts if id is not None]] = NEVER
    weights["output_bias"] = torch.cat([bias[rows].where(said, torch.tensor(NEVER)), others])
    for table in ("embedding.weight", "output_weight"):
        weights[table] = torch.cat([weights[table][rows], weights[table]])
    if options["tied"]:
        del weights["output_weight"]
    return Captioner(vision, PretrainedConfig(**options), weights, specials)


def special_ids(
    config: Any, unk: int | None, *, start: int | None = None, end: int | None = None
) -> dict[str, int | None]:
    """The model's ids of `SPECIALS`.

    Raises:
        BundleError: it does not say how captions begin or end.
    """
    start = config.bos_token_id if start is None else start
    end = config.eos_token_id if end is None else end
    if isinstance(end, list):
        if len(end) > 1:
            raise BundleError(f"The model ends captions with any of {len(end)} tokens, but showtell supports only one.")
        end = end[0]
    if start is None or end is None:
        raise BundleError("The model does not say with which token captions begin and end.", "Copy the model again.")
    return dict(zip(SPECIALS, (config.pad_token_id, start, end, unk), strict=True))


def activation_of(name: str) -> str:
    """The name of an activation in showtell. Raises BundleError."""
    if name not in ACTIVATIONS:
        raise BundleError(f"The model's activation is {name}, but showtell supports only {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def bert_options(text: Any) -> dict[str, Any]:
    return {
        "layers": text.num_hidden_layers,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "feed_forward_width": text.intermediate_size,
        "norm": "post",
        "norm_epsilon": text.layer_norm_eps,
        "activation": activation_of(text.hidden_act),
        "dropout": text.hidden_dropout_prob,
        "max_positions": text.max_position_embeddings,
        "embedding_norm": True,
        "head": text.model_type != "git",
    }


def unused(text: Any) -> int:
    """Unused first rows in the table of positions: RoBERTa counts from the padding id on."""
    return text.pad_token_id + 1 if text.model_type == "roberta" else 0


def bert_weights(weights: Mapping[str, Tensor], prefix: str, layers: int, first: int = 0) -> dict[str, Tensor]:
    """Embeddings and layers; the words' only segment type is added to the positions."""
    table = f"{prefix}embeddings."
    positions = weights[f"{table}position_embeddings.weight"][first:]
    if (kinds := weights.get(f"{table}token_type_embeddings.weight")) is not None:
        positions = positions + kinds[0]
    return {
        "embedding.weight": weights[f"{table}word_embeddings.weight"],
        "positions.weight": positions,
        **{f"embedding_norm.{part}": weights[f"{table}LayerNorm.{part}"] for part in ("weight", "bias")},
        **layer_weights(weights, f"{prefix}encoder.layer.", BERT, layers),
    }


def head_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's last layer and output, or RoBERTa's."""
    if "lm_head.dense.weight" in weights:
        dense, norm, output = "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"
    else:
        head = "cls.predictions."
        dense, norm, output = f"{head}transform.dense", f"{head}transform.LayerNorm", f"{head}decoder"
    parts = ("weight", "bias")
    return {
        **{f"head.0.{part}": weights[f"{dense}.{part}"] for part in parts},
        **{f"head.2.{part}": weights[f"{norm}.{part}"] for part in parts},
        **{f"output_{part}": weights[f"{output}.{part}"] for part in parts},
    }


def gpt2_options(text: Any) -> dict[str, Any]:
    if not text.scale_attn_weights or text.scale_attn_by_inverse_layer_idx:
        raise BundleError("The model's GPT-2 scales attention in a way that showtell does not support.")
    return {
        "layers": text.n_layer,
        "width": text.n_embd,
        "heads": text.n_head,
        "feed_forward_width": text.n_inner or 4 * text.n_embd,
        "norm": "pre",
        "norm_epsilon": text.layer_norm_epsilon,
        "activation": activation_of(text.activation_function),
        "dropout": text.resid_pdrop,
        "max_positions": text.n_positions,
        "last_norm": True,
    }


def gpt2_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("transformer.h."))
    # GPT-2 stores its matrices transposed.
    turned = {n: w.T if w.ndim == 2 and n.startswith("transformer.h.") else w for n, w in weights.items()}
    return {
        "embedding.weight": weights["transformer.wte.weight"],
        "positions.weight": weights["transformer.wpe.weight"],
        "output_weight": weights["lm_head.weight"],
        **{f"last_norm.{part}": weights[f"transformer.ln_f.{part}"] for part in ("weight", "bias")},
        **layer_weights(turned, "transformer.h.", GPT2, layers),
    }


def layer_weights(weights: Mapping[str, Tensor], prefix: str, names: Names, layers: int) -> dict[str, Tensor]:
    """The layers' weights by showtell's names; parts that a model lacks (attention to the image) are left out."""
    found = {}
    for layer in range(layers):
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                there = [f"{prefix}{layer}.{name}.{part}" for name in theirs]
                if there[0] in weights:
                    found[f"layers.{layer}.{ours}.{part}"] = torch.cat([weights[name] for name in there])
    return found
