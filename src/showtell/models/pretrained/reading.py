"""A folder as `save_pretrained` writes it -> what a model folder of showtell holds: config, words, weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from tokenizers import processors

from showtell.errors import BundleError, DataError, needs
from showtell.files import read_json
from showtell.models.encoders.captioner_vision import PREFIX, CaptionerVisionConfig, settings_of, shapes_of
from showtell.models.encoders.transformers_backbone import preprocessing_of
from showtell.models.encoders.transformers_names import float32, quiet
from showtell.models.pretrained.families import FAMILIES, Captioner, captioner_of
from showtell.search.options import MOST, SearchOptions
from showtell.tokenizer import SPECIALS, Tokenizer

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
MAX_WORDS = 30  # pieces; what a model's own settings say is often 20, with a prompt in it


class Read(NamedTuple):
    """What was read."""

    config: dict[str, Any]
    """Fields of `bundle.BundleConfig`."""
    tokenizer: Tokenizer
    weights: dict[str, NDArray[Any]]


def read_captioner(folder: Path, name: str) -> Read:
    """Read a captioner of transformers.

    Args:
        folder: that `save_pretrained` wrote, or of the Hub's cache.
        name: what people call it.

    Raises:
        BundleError: it is no captioner that showtell knows, or a file is missing or damaged.
        MissingExtraError: transformers is not installed.
    """
    with needs("train,encoders", f"The captioner {name}"):
        import transformers
    library: Any = transformers
    try:
        published = read_json(folder / "config.json")
    except DataError as error:
        raise BundleError(error.problem, "Copy the model folder again.") from None
    kind = next(iter(published.get("architectures") or ()), None) or f"model_type {published.get('model_type')}"
    if kind not in FAMILIES:
        raise BundleError(
            f"{name} is a {kind}, and showtell knows no such captioner.",
            f"It knows {', '.join(FAMILIES)}: see docs/pretrained.md.",
        )
    if not any(folder.glob("model*.safetensors")):
        raise BundleError(
            f"{name} holds no model.safetensors, and showtell reads weights from no other kind of file.",
            "Name a revision that has it (on the Hub often @refs/pr/1), or write it with transformers: "
            "model.save_pretrained(DIR).",
        )
    with quiet():
        try:
            model = getattr(library, kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, **float32()
            )
            words = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever damaged files do to their readers
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise BundleError(f"{name} can't be read: {reason}.", "Copy the model folder again.") from error
    parts = captioner_of(model.eval(), words.unk_token_id)
    vision = vision_config(parts, model, folder, name)
    assert vision.preprocessing is not None
    hidden, grid = shapes_of(vision, vision.preprocessing.size)
    decoder = parts.config
    if decoder.before_grid is not None:
        decoder = decoder.model_copy(update={"before_grid": hidden[1] - grid[2] * grid[3]})
    weights = {f"decoder.{key}": tensor for key, tensor in parts.weights.items()}
    weights |= {f"encoder.network.{key}": tensor for key, tensor in vision_weights(parts.vision).items()}
    config = {
        "name": Path(name.removeprefix(PREFIX)).name,
        "about": f"{name}, trained elsewhere and published for transformers.",
        "preprocessing": vision.preprocessing.model_dump(),
        "encoder": vision.model_dump(mode="json"),
        "decoder": decoder.model_dump(mode="json"),
        "search": search_options(model.generation_config, decoder.max_positions),
        "grid": (grid[2], grid[3]),
        "training": {"of": name},
    }
    size = len(parts.weights["embedding.weight"])
    return Read(config, tokenizer_of(words, parts, size, name), {k: w.detach().numpy() for k, w in weights.items()})


def vision_config(parts: Captioner, model: Any, folder: Path, name: str) -> CaptionerVisionConfig:
    """The settings of the image half."""
    queries = getattr(parts.vision, "qformer", None)
    backbone = parts.vision if queries is None else model.vision_model
    of_queries: dict[str, Any] = {}
    if queries is not None:
        of_queries = {
            "queries": queries.config.to_diff_dict(),
            "num_queries": parts.vision.query_tokens.shape[1],
            "projected": parts.config.width,
        }
    found: dict[str, Any] = next((read_json(folder / file) for file in PROCESSORS if (folder / file).is_file()), {})
    return CaptionerVisionConfig(
        name=f"{PREFIX}{name.removeprefix(PREFIX)}",
        preprocessing=preprocessing_of(found.get("image_processor", found), name),
        architecture=settings_of(backbone),
        **of_queries,
    )


def vision_weights(vision: Any) -> dict[str, Any]:
    """The weights that `CaptionerVision.network` has."""
    halves = ("vision_model.", "qformer.", "query_tokens", "language_projection.")
    whole = hasattr(vision, "qformer")
    return {
        name: tensor
        for name, tensor in vision.state_dict().items()
        if (name.startswith(halves) if whole else not name.startswith("pooler."))
    }


def search_options(generation: Any, positions: int) -> SearchOptions:
    """How the model's own settings search, where they say it."""
    beam = getattr(generation, "num_beams", None) or 1
    penalty = getattr(generation, "length_penalty", None)
    return SearchOptions(
        beam=min(beam, MOST) if beam > 1 else SearchOptions.beam,
        length_penalty=1.0 if penalty is None or not 0 <= penalty <= 10 else float(penalty),
        max_words=min(MAX_WORDS, positions - 1),
        like_generate=True,
        no_repeat_ngram=getattr(generation, "no_repeat_ngram_size", None) or 0,
    )


def tokenizer_of(words: Any, parts: Captioner, size: int, name: str) -> Tokenizer:
    """The model's own table of pieces, its ids showtell's, with a name for each of the output's ids.

    Raises:
        BundleError: it is of a kind that has no such table.
    """
    if getattr(words, "backend_tokenizer", None) is None:
        raise BundleError(f"The tokenizer of {name} is written in Python, and showtell can't read it.")
    table = json.loads(words.backend_tokenizer.to_str())
    vocabulary = table["model"].get("vocab")
    if table["model"]["type"] not in ("WordPiece", "BPE") or not isinstance(vocabulary, dict):
        raise BundleError(
            f"The tokenizer of {name} is a {table['model']['type']}, and showtell reads WordPiece and BPE."
        )
    names = {id: piece for piece, id in vocabulary.items()}
    names |= {token["id"]: token["content"] for token in table["added_tokens"]}
    first = len(SPECIALS)
    pieces = [*SPECIALS]
    for id in range(size - first):
        piece = names.get(id, f"<{id}>")
        pieces.append(f"<{id}>" if piece in SPECIALS else piece)
    table["model"]["vocab"] = {piece: id for id, piece in enumerate(pieces)}
    table["model"]["unk_token"] = "<unk>"
    table["added_tokens"] = []  # a caption that spells out "[SEP]" says nothing special
    table["truncation"] = table["padding"] = None
    ends = [("<start>", Tokenizer.start), ("<end>", Tokenizer.end)]
    template = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    table["post_processor"] = json.loads(template.__getstate__())
    return Tokenizer.from_json(json.dumps(table))
