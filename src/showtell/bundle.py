"""A model on disk: a folder with all that captioning needs, and nothing that runs code when it is read.

    config.json         what the model is (`BundleConfig`): preprocessing, encoder, decoder, scores
    tokenizer.json      its words
    model.safetensors   its weights, for PyTorch
    README.md           its model card, for people

Instead of model.safetensors, an exported model has what ONNX Runtime reads (see `export/graphs.py`):

    encoder.onnx        images -> grid
    decoder_start.onnx  grid -> memory and the state before the first word
    decoder_step.onnx   one more word
    weights.bin         the weights of the three
    trainable.safetensors  what PyTorch needs beside weights.bin (see `exported_weights.py`); not with int8 arithmetic

Models that come with the package are in the folder `shipped`, and are found by their names. A captioner of
`transformers` (`models/pretrained`) is read as such a folder; its config and words are made while it is read.

The folder is replaced as a whole: a reader sees the old model or the new one, never a mixture, even if training
replaces it at that moment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from showtell import model_hub as hub
from showtell.confidence import Confidence
from showtell.errors import BundleError, DataError, UsageError, needs
from showtell.files import new_file, new_folder, read_folder, read_json, read_text, write_file
from showtell.images.decode import Preprocessing
from showtell.search.options import SearchOptions
from showtell.tokenizer import Tokenizer

FORMAT_VERSION = 1
CONFIG, TOKENIZER, WEIGHTS, CARD = "config.json", "tokenizer.json", "model.safetensors", "README.md"
ENCODER, DECODER_START, DECODER_STEP = "encoder.onnx", "decoder_start.onnx", "decoder_step.onnx"
ONNX_WEIGHTS, TRAINABLE = "weights.bin", "trainable.safetensors"
FILES = (CONFIG, TOKENIZER, WEIGHTS, CARD, ENCODER, DECODER_START, DECODER_STEP, ONNX_WEIGHTS, TRAINABLE)
READ = (*FILES, *hub.TRANSFORMERS_FILES)
"""Name patterns of all the files of a model that are read, including those of a transformers model."""
SHIPPED = Path(__file__).parent / "shipped"
DEFAULT = "everyday"  # the shipped model that is used when none is named


class BundleConfig(BaseModel):
    """What a model is, in JSON. An unknown key is an error: it may change what the model computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = Field(FORMAT_VERSION, description="of this file; a newer one is refused")
    name: str = Field(description="what the model is called in lists and messages")
    about: str = Field("", description="what it is good at, to help people choose a model: one sentence")
    licence: str = Field("", description="of its data and its weights: one sentence")
    preprocessing: Preprocessing = Field(description="how an image becomes the encoder's input")
    encoder: dict[str, Any] = Field(description="what models.encoders builds the encoder from")
    decoder: dict[str, Any] = Field(description="what models builds the decoder from")
    search: SearchOptions = Field(SearchOptions(), description="how captions are searched by default")
    grid: tuple[int, int] = Field(description="rows and columns of the encoder's cells: N = rows x columns")
    confidence: Confidence | None = Field(None, description="how captions' confidence follows from their features")
    scores: dict[str, float] = Field({}, description="of generated captions, by metric, on the validation split")
    training: dict[str, Any] = Field({}, description="how it was trained: data, recipe, steps")


@dataclass(frozen=True)
class Bundle:
    """A model folder whose config and tokenizer have been read; its weights are read on request."""

    path: Path
    config: BundleConfig
    tokenizer: Tokenizer
    converted: Mapping[str, np.ndarray] | None = field(default=None, repr=False)
    """The weights of a captioner of transformers; None for a showtell model, whose weights are on the disk."""

    @property
    def is_exported(self) -> bool:
        """Whether ONNX Runtime can run it, without PyTorch."""
        return (self.path / ENCODER).is_file()

    def card(self) -> str:
        """The model card; for a captioner of transformers without one, its name."""
        try:
            return read_text(self.path / CARD)
        except DataError:
            if self.converted is None:
                raise
            return f"# {self.config.name}\n\n{self.config.about}\n"

    def weights(self) -> dict[str, np.ndarray]:
        """The weights by name; those of an exported model as they are stored, perhaps rounded.

        Raises:
            BundleError: a file is missing or damaged, or the model is exported without them.
            MissingExtraError: `safetensors` is not installed.
        """
        if self.converted is not None:
            return dict(self.converted)
        if self.is_exported and not (self.path / TRAINABLE).is_file():
            raise BundleError(
                f"{self.path} is exported, and holds no weights for PyTorch.",
                "Give the folder that 'showtell train' wrote.",
            )
        with needs("train", f"Reading the weights of {self.path}"):
            from safetensors import SafetensorError
            from safetensors.numpy import load

            from showtell.exported_weights import read_exported_weights

        def read() -> dict[str, np.ndarray]:
            if self.is_exported:
                return read_exported_weights(self.path / TRAINABLE, self.path / ONNX_WEIGHTS)
            return load((self.path / WEIGHTS).read_bytes())  # load_file opens it twice

        try:
            return read_folder(self.path, read)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            file = self.path / (TRAINABLE if self.is_exported else WEIGHTS)
            raise BundleError(f"The weights {file} can't be read: {error}.", "Copy the model folder again.") from None


def shipped_models() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    return {config.parent.name: config.parent for config in sorted(SHIPPED.glob(f"*/{CONFIG}"))}


def default_model() -> Path:
    """The folder of the model that is used when none is named.

    Raises:
        BundleError: this copy of the package has none.
    """
    folders = shipped_models()
    folder = folders.get(DEFAULT, next(iter(folders.values()), None))
    if folder is None:
        raise BundleError(
            "This copy of showtell comes without a model.",
            "Train one ('showtell train') and name its folder: showtell.load(DIR), or --model DIR.",
        )
    return folder


def load_bundle(where: str | Path) -> Bundle:
    """Read a model folder, the ``model`` folder of a training run, a shipped model by its name, or ``hub:org/name``.

    A folder or a Hub repository may also hold a captioner of transformers. ``hf:org/name`` is the same as
    ``hub:org/name``. The `training` of a Hub model says which commit it is.

    Raises:
        BundleError: there is no such model, or a file is damaged or of a newer showtell.
        MissingExtraError: it is on the Hub, and `huggingface_hub` is not installed.
    """
    if isinstance(where, str) and where.startswith(hub.PREFIXES):
        folder, commit = hub.fetch_model(where, READ, partial(_check_config, where))
        bundle = _bundle_in(folder, where)
        assert bundle is not None  # `fetch_model` found a config.json
        training = {**bundle.config.training, "hub": commit}
        return replace(bundle, config=bundle.config.model_copy(update={"training": training}))
    path = Path(where) if Path(where).name else Path(where).absolute()  # "." has no name
    shipped = shipped_models()
    folders = [path, path / "model"]
    if isinstance(where, str) and where in shipped:  # even if a folder of that name holds something else (photos)
        folders.append(shipped[where])
    for folder in folders:
        if found := read_folder(folder, partial(_bundle_in, folder, str(folder))):
            return found
    problem = f"{path} is not a model: it holds no {CONFIG}." if path.is_dir() else f"There is no model folder {path}."
    names = f", or a model that comes with showtell: {', '.join(shipped)}" if shipped else ""
    raise BundleError(problem, f"Give the folder that 'showtell train' wrote{names}.")


def _bundle_in(folder: Path, name: str) -> Bundle | None:
    if not (folder / CONFIG).is_file():
        return None
    if (config := _check_config(name, folder)) is None:
        from showtell.models.pretrained.reading import read_captioner

        read = read_captioner(folder, name)
        return Bundle(folder, BundleConfig(**read.config), read.tokenizer, read.weights)
    return Bundle(folder, config, Tokenizer.load(folder / TOKENIZER))


def _check_config(name: str, folder: Path) -> BundleConfig | None:
    """The config in a folder; None for a captioner of transformers, whose config is known only once all of it is read.

    Raises:
        BundleError: it is damaged, or of a model that showtell can't read.
        MissingExtraError: it is such a captioner, and transformers is not installed.
    """
    values = _read_json(folder / CONFIG)
    if "format_version" in values or not values.keys() & {"model_type", "architectures"}:
        return _read_config(folder / CONFIG, values)
    with needs("train,encoders", f"The captioner {name}"):
        from showtell.models.pretrained.reading import check_kind
    check_kind(values, name)
    return None


def check_replaceable(path: Path, *, means: bool = False) -> None:
    """Refuse, before the work, a folder where a new model would replace something that can't be made again.

    Args:
        path: the folder; it need not exist.
        means: whether the mean of other models' weights may be replaced.

    Raises:
        UsageError: it holds a trained model, or other files than a model, or is a file.
    """
    there = {file.name for file in path.iterdir()} if path.is_dir() else set()
    strange = sorted(name for name in there if name not in FILES and not name.startswith("."))
    if WEIGHTS in there and not strange and not (means and "mean_of" in load_bundle(path).config.training):
        raise UsageError(f"{path} holds a trained model, and writing there would remove it.", "Choose a new folder.")
    if strange or (path.exists() and not path.is_dir()):
        holds = f"holds files that are not part of a model ({strange[0]})" if strange else "is a file"
        raise UsageError(f"{path} {holds}, and writing a model there would remove it.", "Choose a new folder.")


def save_bundle(
    path: str | Path,
    config: BundleConfig,
    tokenizer: Tokenizer,
    weights: Mapping[str, np.ndarray],
    card: str,
    exported: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model folder, in place of the model that is there already.

    Args:
        path: the folder.
        config: config.json.
        tokenizer: tokenizer.json.
        weights: model.safetensors; without any, the file is not written.
        card: README.md.
        exported: the files for ONNX Runtime, by name.

    Raises:
        BundleError: the folder holds something other than a model, or can't be written.
        MissingExtraError: `safetensors` is not installed.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise BundleError(f"{path} is a file, and writing a model there would remove it.", "Choose a new folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / CONFIG).is_file():
        raise BundleError(
            f"{path} holds files that are not part of a model, and writing a model there would remove them.",
            "Choose a new folder.",
        )
    texts = {CONFIG: _config_json(config), TOKENIZER: tokenizer.to_json(), CARD: card}
    try:
        with new_folder(path) as fresh:
            if weights:
                _save_weights(weights, fresh / WEIGHTS)
            for name, content in {**(exported or {}), **{name: text.encode() for name, text in texts.items()}}.items():
                (fresh / name).write_bytes(content)
    except OSError as error:
        raise BundleError(f"The model folder {path} can't be written: {error.strerror}.") from None


def save_config(bundle: Bundle, config: BundleConfig) -> None:
    """Put another config into a model's folder. Raises BundleError."""
    try:
        write_file(bundle.path / CONFIG, _config_json(config))
    except OSError as error:
        raise BundleError(f"{bundle.path / CONFIG} can't be written: {error.strerror}.") from None


def _config_json(config: BundleConfig) -> str:
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _save_weights(weights: Mapping[str, np.ndarray], path: Path) -> None:
    with needs("train", "Writing model.safetensors"):
        from safetensors.numpy import save_file
    with new_file(path) as aside:
        save_file({name: np.asarray(array, order="C") for name, array in weights.items()}, aside)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except DataError as error:
        raise BundleError(error.problem, "Copy the model folder again.") from None
    return values if isinstance(values, dict) else {}


def _read_config(path: Path, values: Mapping[str, Any]) -> BundleConfig:
    """Read what config.json holds; the version first, because a newer file may hold anything."""
    version = values.get("format_version")
    if not isinstance(version, int):
        raise BundleError(f"{path} is not the config of a showtell model: it has no format_version.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path} has model format {version}, but this version of showtell reads only up to {FORMAT_VERSION}.",
            "Run: pip install --upgrade showtell",
        )
    try:
        return BundleConfig.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{path} is not a valid config ({wrong}).", "Copy the model folder again.") from None
    except UsageError as error:
        raise BundleError(f"{path} is not a valid config (search: {error.problem})") from None
