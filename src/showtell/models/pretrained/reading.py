"""From a folder that `save_pretrained` wrote to the parts of a showtell model: config, words, weights."""

import json
import logging
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from numpy.typing import NDArray
from tokenizers import processors
from torch import Tensor

from showtell.errors import BundleError, DataError, needs
from showtell.files import read_json
from showtell.models.encoders.captioner_vision import PREFIX, CaptionerVisionConfig, settings_of, shapes_of
from showtell.models.encoders.transformers_backbone import UNUSED, patch_of, preprocessing_of
from showtell.models.encoders.transformers_names import float32, quiet, without_programs
from showtell.models.pretrained.families import FAMILIES, WRITERS, Captioner, captioner_of
from showtell.search.options import MOST, SearchOptions
from showtell.tokenizer import SPECIALS, Tokenizer

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
TABLES = ("tokenizer.json", "vocab.txt", "vocab.json")  # one of them holds the words
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
COPY = "Copy the model folder again."
logger = logging.getLogger(__name__)

MAX_WORDS = 30  # pieces; models' own settings often say 20, including a prompt


class Read(NamedTuple):
    """What was read."""

    config: dict[str, Any]
    """Fields of `bundle.BundleConfig`."""
    tokenizer: Tokenizer
    weights: dict[str, NDArray[Any]]


def check_kind(published: dict[str, Any], name: str) -> str:
    """The class of transformers that a config.json names.

    Raises:
        BundleError: showtell can't read such a captioner.
    """
    kinds = published.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else f"model of type {published.get('model_type')}"
    if kind not in FAMILIES:
        raise BundleError(f"{name} is a {kind}, which showtell can't read.", f"It reads {', '.join(FAMILIES)}.")
    half, writers = WRITERS.get(kind, ("", ()))
    settings = published.get(half, {})
    writer = settings.get("model_type", *writers[:1]) if isinstance(settings, dict) else str(settings)
    if writers and writer not in writers:
        raise BundleError(
            f"{name} is a {kind} that writes with {writer}, which showtell can't read.",
            f"It reads those that write with {', '.join(writers)}.",
        )
    if kind == "VisionEncoderDecoderModel" and not (settings.get("is_decoder") and settings.get("add_cross_attention")):
        raise BundleError(
            f"{name} has a decoder that does not look at the image.", "Set is_decoder and add_cross_attention."
        )
    if published.get("num_image_with_embedding") is not None:
        raise BundleError(f"{name} describes videos, and showtell describes photos.", "Use one for images.")
    if "quantization_config" in published:
        raise BundleError(f"The weights of {name} are quantised.", "Use the model in float32 or float16.")
    return kind


def read_captioner(folder: Path, name: str) -> Read:
    """Read a captioner of transformers.

    Args:
        folder: a folder that `save_pretrained` wrote, or one in the Hub's cache.
        name: its name for people.

    Raises:
        BundleError: showtell does not know such a captioner, or a file is missing or damaged.
        MissingExtraError: transformers is not installed.
    """
    with needs("train,encoders", f"The captioner {name}"):
        import transformers
    library: Any = transformers
    published = without_programs(settings_in(folder / "config.json"))
    kind = getattr(library, check_kind(published, name))
    stored = stored_weights(folder, name)
    if not any((folder / file).is_file() for file in TABLES):
        raise BundleError(
            f"{name} holds no tokenizer.json.", "Write it with transformers: tokenizer.save_pretrained(DIR)."
        )
    with quiet():
        try:
            model = model_with(stored, kind, published, name)
            if (folder / "generation_config.json").is_file():
                model.generation_config = library.GenerationConfig.from_pretrained(folder, local_files_only=True)
            # Without False, transformers asks whether it may run code from the folder.
            words = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            del stored
            parts = captioner_of(model, words.unk_token_id)
            vision = vision_config(parts, model, folder, name)
            tokenizer = tokenizer_of(words, parts, len(parts.weights["embedding.weight"]), name)
        except BundleError:
            raise
        except Exception as error:  # whatever damaged files cause
            reason = shorten(str(error).strip().partition("\n")[0].rstrip("."), 200)
            raise BundleError(
                f"{name} can't be read: {reason}.", "It may be damaged, or of a newer transformers."
            ) from error
    assert vision.preprocessing is not None
    hidden, grid = shapes_of(vision, vision.preprocessing.size)
    decoder = parts.config
    if decoder.before_grid is not None:
        decoder = decoder.model_copy(update={"before_grid": hidden[1] - grid[2] * grid[3]})
    weights = {f"decoder.{key}": tensor for key, tensor in parts.weights.items()}
    weights |= {f"encoder.network.{key}": tensor for key, tensor in vision_weights(parts.vision).items()}
    config = {
        "name": Path(name).name if name == own_name(name) else Path(own_name(name).partition("@")[0]).name,
        "about": f"{name}, trained elsewhere and published for transformers.",
        "preprocessing": vision.preprocessing.model_dump(),
        "encoder": vision.model_dump(mode="json"),
        "decoder": decoder.model_dump(mode="json"),
        "search": search_options(model.generation_config, decoder.max_positions),
        "grid": (grid[2], grid[3]),
        "training": {"of": name},
    }
    return Read(config, tokenizer, {key: tensor.detach().numpy() for key, tensor in weights.items()})


def own_name(name: str) -> str:
    """A captioner's name without the prefix of the Hub."""
    return name.removeprefix("hub:").removeprefix(PREFIX)


def settings_in(file: Path) -> dict[str, Any]:
    """The content of a settings file. Raises BundleError."""
    try:
        values = read_json(file)
    except DataError as error:
        raise BundleError(error.problem, COPY) from None
    if not isinstance(values, dict):
        raise BundleError(f"{file} holds no settings.", COPY)
    return values


def stored_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights by transformers' names, read here: transformers unpickles what a folder's index or config.json names.

    Raises:
        BundleError: there are none, or a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if not (folder / SHARDS).is_file():
            raise BundleError(
                f"{name} holds no {WEIGHTS}, and showtell reads weights from no other file.",
                "Name a revision that has it (on the Hub often @refs/pr/1), or write it with transformers: "
                "model.save_pretrained(DIR).",
            )
        table = settings_in(folder / SHARDS).get("weight_map")
        files = sorted({Path(str(file)).name for file in table.values()}) if isinstance(table, dict) else []
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights |= load_file(folder / file)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"The weights {folder / file} can't be read: {error}.", COPY) from None
    return weights


def model_with(weights: dict[str, Tensor], kind: Any, published: dict[str, Any], name: str) -> Any:
    """A model of a transformers class with these weights.

    Raises:
        BundleError: they are not those of the model that config.json describes.
    """
    model, read = kind.from_pretrained(
        None,
        config=kind.config_class.from_dict(published),
        state_dict=weights,
        attn_implementation="eager",  # config.json may name one on the Hub, which is code
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **float32(),
    )
    lacking = sorted(key for key in read["missing_keys"] if UNUSED.isdisjoint(key.split(".")))
    lacking += sorted(key for key, *_ in read["mismatched_keys"])
    if lacking:
        raise BundleError(f"{name} has no weights {lacking[0]} of the size that its config.json says.", COPY)
    return model.eval()


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
    file = next((folder / file for file in PROCESSORS if (folder / file).is_file()), None)
    if file is None:
        raise BundleError(
            f"{name} holds no {PROCESSORS[0]}, which says how photos are resized.",
            "Write it with transformers: processor.save_pretrained(DIR).",
        )
    found = settings_in(file)
    try:
        preprocessing = preprocessing_of(found.get("image_processor", found), name)
    except BundleError as error:
        raise BundleError(error.problem, f"Set a square size in {file}.") from None
    patch = patch_of(backbone.config)
    if patch and preprocessing.size % patch:
        raise BundleError(
            f"{name} can't see photos of {preprocessing.size} pixels: its patches have {patch} pixels a side.",
            f"Set a multiple of {patch} in {file}.",
        )
    return CaptionerVisionConfig(
        name=f"{PREFIX}{own_name(name)}",
        preprocessing=preprocessing,
        architecture=settings_of(backbone),
        **of_queries,
    )


def vision_weights(vision: Any) -> dict[str, Any]:
    """The weights of `CaptionerVision.network`."""
    halves = ("vision_model.", "qformer.", "query_tokens", "language_projection.")
    whole = hasattr(vision, "qformer")
    return {
        name: tensor
        for name, tensor in vision.state_dict().items()
        if (name.startswith(halves) if whole else not name.startswith("pooler."))
    }


def search_options(generation: Any, positions: int) -> SearchOptions:
    """The model's own search settings, if it has any; a note names those that showtell does not support."""
    beam = getattr(generation, "num_beams", None) or 1
    penalty = getattr(generation, "length_penalty", None)
    others = [
        f"{key} {value}"
        for key, usual in (("early_stopping", False), ("repetition_penalty", 1.0))
        if (value := getattr(generation, key, None)) not in (None, usual)
    ]
    if penalty is not None and not 0 <= penalty <= 10:
        others.append(f"length_penalty {penalty}")
    if others:
        logger.warning("The model's own search uses %s, but showtell's does not.", ", ".join(others))
    max_words = min(MAX_WORDS, positions - 1)
    # Theirs counts <start>, and may be 0: showtell says at least one word.
    shortest = getattr(generation, "min_new_tokens", None) or (getattr(generation, "min_length", None) or 0) - 1
    return SearchOptions(
        beam=min(beam, MOST) if beam > 1 else SearchOptions.beam,
        length_penalty=1.0 if penalty is None or not 0 <= penalty <= 10 else float(penalty),
        min_words=min(max(1, shortest), max_words),
        max_words=max_words,
        like_generate=True,
        no_repeat_ngram=getattr(generation, "no_repeat_ngram_size", None) or 0,
    )


def tokenizer_of(words: Any, parts: Captioner, size: int, name: str) -> Tokenizer:
    """The model's own table of pieces, with showtell's ids and a name for each id of the output.

    Raises:
        BundleError: its tokenizer has no such table.
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
    table["added_tokens"] = []  # "[SEP]" written in a caption is not special
    table["truncation"] = table["padding"] = None
    ends = [("<start>", Tokenizer.start), ("<end>", Tokenizer.end)]
    template = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    table["post_processor"] = json.loads(template.__getstate__())
    return Tokenizer.from_json(json.dumps(table))
