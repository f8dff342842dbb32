"""Images in, captions out: showtell's interface for Python programs.

captioner = showtell.load()                           # the model that comes with the package; or a folder
best = captioner("dog.jpg")[0]                        # one image: its captions, best first
lists = captioner(["dog.jpg", "cat.png"], beam=5)     # many images: a list of captions for each
for captions in captioner.stream(paths): ...          # a folder of any size, in constant memory
together = showtell.load(["runs/a", "runs/b"])        # an ensemble: models that share a vocabulary
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from PIL import Image

from showtell.bundle import Bundle, BundleConfig, default_model, load_bundle
from showtell.confidence import Confidence, features_of
from showtell.engines import exported
from showtell.engines.ensemble import EnsembleEngine
from showtell.errors import BundleError, MissingExtraError, ShowtellError, UsageError, needs
from showtell.images.decode import Pixels, Source, normalise, read_image, resize
from showtell.languages import UNSPACED
from showtell.search import Hypothesis, search
from showtell.search.engine import Engine, Memory, Vocabulary
from showtell.search.options import SearchOptions, declared
from showtell.search.rules import rules_for

ONE_IMAGE = (str, Path, bytes, np.ndarray, Image.Image)
READING_THREADS = min(4, exported.CORES)

Batch = list[tuple[int, Pixels | ShowtellError]]  # images by number, or why one can't be read

EngineName = Literal["auto", "onnx", "openvino", "openvino-float32", "torch"]
"""What runs an exported model; see `load`."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Caption:
    """One caption of one image, and how sure the model is of it."""

    text: str
    words: tuple[str, ...]
    log_prob: float
    """Natural logarithm of the caption's probability, including the end of the caption."""
    word_log_probs: tuple[float, ...]
    """The log-probability of each word. `log_prob` also includes the log-probability of `<end>`."""
    score: float
    """The score that ranks an image's captions: `log_prob`, normalised by length as the options say."""
    attention: npt.NDArray[np.float32] | None = field(repr=False)
    """`[words, h, w]`: where on the encoder's grid the model looked for each word; each sums to 1."""
    finished: bool
    """False if the caption was cut at `max_words`."""
    confidence: float | None = None
    """The chance that the caption is right, 0..1 (`confidence.py`); None if the model has no calibration."""
    left_out: str | None = None
    """Why its words were removed, or None."""

    def __str__(self) -> str:
        return self.text

    def if_at_least(self, confidence: float) -> "Caption":
        """The caption itself, or one without words if its confidence is lower."""
        if self.confidence is None or self.confidence >= confidence:
            return self
        reason = f"confidence {self.confidence:.2f} is under {confidence:g}"
        return replace(self, text="", words=(), word_log_probs=(), attention=None, left_out=reason)


class Captioner:
    """A model that is ready to caption images.

    Args:
        engine: holds the weights.
        tokenizer: the model's words; showtell's tokenizer, or another library's with the same methods.
        config: the config of the model's bundle: preprocessing, grid, default search options.
    """

    def __init__(self, engine: Engine, tokenizer: Vocabulary, config: BundleConfig) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config

    @overload
    def __call__(
        self, images: Source, *, batch_size: int = 16, attention: bool = True, **search_options: Any
    ) -> list[Caption]: ...

    @overload
    def __call__(
        self, images: Iterable[Source], *, batch_size: int = 16, attention: bool = True, **search_options: Any
    ) -> list[list[Caption]]: ...

    def __call__(
        self,
        images: Source | Iterable[Source],
        *,
        batch_size: int = 16,
        attention: bool = True,
        **search_options: Any,
    ) -> list[Caption] | list[list[Caption]]:
        """Caption one image, or many.

        Args:
            images: whatever `showtell.images.decode.read_image` takes, or an iterable of that.
            batch_size: images that are captioned together; the captions don't depend on it.
            attention: whether `Caption.attention` is wanted.
            search_options: fields of `SearchOptions` that replace the model's own: `beam=5`, `num=3`.

        Returns:
            The captions of the image, best first (`num` of them); for many images, a list of such lists.

        Raises:
            ImageError: an image can't be read. (`stream` continues with the others.)
            UsageError: there is no such option, or its value is wrong.
        """
        one = is_one_image(images)
        sources: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
        captions = []
        for outcome in self.stream(sources, batch_size=batch_size, attention=attention, **search_options):
            if isinstance(outcome, ShowtellError):
                raise outcome
            captions.append(outcome)
        return captions[0] if one else captions

    def stream(
        self,
        images: Iterable[Source | Callable[[], Source]],
        *,
        batch_size: int = 16,
        numbers: Iterable[int] | None = None,
        attention: bool = False,
        **search_options: Any,
    ) -> Iterator[list[Caption] | ShowtellError]:
        """Caption any number of images, in order, in constant memory; files are read ahead on threads.

        An engine that uses fewer threads than there are cores (`load(model, threads=1)`) captions several
        batches at a time: for many images that is faster than one batch on all cores.

        Args:
            images: as in `__call__`; or functions that return an image, called on the reading threads.
            batch_size: images that are captioned together.
            numbers: the images' numbers, which seed sampling: an image with the same number gets the same
                samples. By default 0, 1, 2, ...
            attention: whether `Caption.attention` is wanted.
            search_options: as in `__call__`.

        Yields:
            For each image its captions, best first; or the error that explains why it can't be read.
        """
        options = self.options(**search_options)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}.", "Give 1 or more.")
        return self._stream(images, batch_size, count() if numbers is None else numbers, attention, options)

    def options(self, **changes: Any) -> SearchOptions:
        """The model's own search options with some of them changed.

        Raises:
            UsageError: there is no such option, or its value is wrong.
        """
        known = {name: (kind, option.text) for name, kind, option in declared()}
        for name, value in changes.items():
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"Did you mean '{near[0]}'?" if near else f"Choose from: {', '.join(known)}."
                raise UsageError(f"There is no search option '{name}'.", hint)
            if known[name] == (str, True) and isinstance(value, str | list | tuple):
                text = value if isinstance(value, str) else " ".join(value)
                changes[name] = tuple(self.tokenizer.words(text))
            elif known[name] == (str, False) and isinstance(value, list | tuple):
                changes[name] = tuple(self._as_vocabulary_writes(name, word) for word in value)
        num, groups = (changes.get(name, getattr(self.config.search, name)) for name in ("num", "groups"))
        sample = changes.get("sample", self.config.search.sample)
        if isinstance(num, int) and isinstance(groups, int) and groups > 0 and "beam" not in changes and not sample:
            # num=5 alone gives five captions, and groups=2 alone gives equal groups.
            changes["beam"] = -(-max(num, self.config.search.beam) // groups) * groups
        options = replace(self.config.search, **changes)
        rules_for(options, self.tokenizer)  # refuses unknown words here, not at the first image
        return options

    def picture(self, image: Source) -> Pixels:
        """The image as the encoder sees it, uint8 `[S, S, 3]`: read, resized and cropped.

        Raises:
            ImageError: it can't be read.
        """
        preprocessing = self.config.preprocessing
        return resize(read_image(image, at_least=preprocessing.shorter_side), preprocessing)

    def encode(self, pictures: Sequence[Pixels]) -> Memory:
        """Encode pictures, as `picture` returns them, for `caption_memory`."""
        return self.engine.encode(normalise(np.stack(pictures), self.config.preprocessing))

    def caption_pictures(
        self,
        pictures: Sequence[Pixels],
        options: SearchOptions,
        *,
        numbers: Sequence[int] | None = None,
        attention: bool = False,
    ) -> list[list[Caption]]:
        """Caption a batch of pictures, as `picture` returns them: for each its captions, best first.

        Args:
            pictures: uint8 `[S, S, 3]` each.
            options: how to search; see `options`.
            numbers: the images' numbers, which seed sampling; by default their places in the batch.
            attention: whether `Caption.attention` is wanted.
        """
        return self.caption_memory(self.encode(pictures), options, numbers=numbers, attention=attention)

    def caption_memory(
        self,
        memory: Memory,
        options: SearchOptions,
        *,
        numbers: Sequence[int] | None = None,
        attention: bool = False,
    ) -> list[list[Caption]]:
        """As `caption_pictures`, for what `encode` returned, or `engine.memory_from_grid` for cached features."""
        found = search(self.engine, memory, options, self.tokenizer, attention=attention, image_numbers=numbers)
        return [[self._caption(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

    def features(self, caption: Caption, rarity: Sequence[float]) -> npt.NDArray[np.float64]:
        """The features for a caption's confidence, `[F]`; a word without its own id (BPE) counts as the rarest."""
        ids = [self.tokenizer.id_of(word) for word in caption.words]
        of_words = [rarity[word] if word is not None and word < len(rarity) else max(rarity) for word in ids]
        return features_of(caption.word_log_probs, caption.log_prob, of_words)

    def confidence_from(
        self,
        captions: Mapping[str, Caption],
        image_ids: Sequence[Sequence[str]],
        ciders: Sequence[npt.NDArray[Any]],
        rarity: tuple[float, ...],
    ) -> Confidence | None:
        """The confidence fitted to these captions; see `Confidence.fit`.

        Args:
            captions: the captioner's own captions by image id.
            image_ids: the images of each data set.
            ciders: the CIDEr of each image of each data set.
            rarity: the rarity of each word, see `Confidence`.
        """
        features = [np.stack([self.features(captions[image_id], rarity) for image_id in ids]) for ids in image_ids]
        return Confidence.fit(list(zip(features, ciders, strict=True)), rarity)

    def refuse_unless_confident(self) -> None:
        """Raise UsageError if the model has no calibrated confidence."""
        if self.config.confidence is None:
            raise UsageError(
                f"{self.config.name} has no calibrated confidence.",
                "Leave the option out, or fit it to 50 captioned photos: showtell calibrate MODEL --data SPEC.",
            )

    def _as_vocabulary_writes(self, option: str, word: str) -> str:
        """A word as captions spell it: without capitals, if the vocabulary has none.

        In a script without spaces it may be cut into several words, if nothing is between them.
        """
        words = self.tokenizer.words(word)
        together = "".join(words)
        if not words or (len(words) > 1 and together.casefold() not in normalize("NFC", word).casefold()):
            way_out = f"Give words one by one: {', '.join(words)}." if words else "Give words one by one."
            raise UsageError(f"{option}: '{word}' is not one word.", way_out)
        return together

    def _stream(
        self,
        images: Iterable[Source | Callable[[], Source]],
        batch_size: int,
        numbers: Iterable[int],
        attention: bool,
        options: SearchOptions,
    ) -> Iterator[list[Caption] | ShowtellError]:
        """`stream`, once its arguments have been checked."""

        def outcomes(batch: Batch) -> list[list[Caption] | ShowtellError]:
            return self._outcomes(batch, options, attention)

        workers = self.engine.batches_at_a_time
        read = done_ahead(self._picture_or_error, images, READING_THREADS, (workers + 1) * batch_size, "showtell-read")
        batches = in_batches(zip(numbers, read, strict=False), batch_size)
        captioned: Iterator[list[list[Caption] | ShowtellError]]
        if workers == 1:
            captioned = map(outcomes, batches)
        else:  # one batch always waits, so that no worker has to
            captioned = done_ahead(outcomes, batches, workers, workers + 1, "showtell-caption")
        for batch in captioned:
            yield from batch

    def _outcomes(self, batch: Batch, options: SearchOptions, attention: bool) -> list[list[Caption] | ShowtellError]:
        """The captions of each image of a batch, or its error."""
        readable = [(number, picture) for number, picture in batch if isinstance(picture, np.ndarray)]
        captions: Iterator[list[Caption]] = iter(())
        if readable:
            numbers, pictures = zip(*readable, strict=True)
            captions = iter(self.caption_pictures(pictures, options, numbers=numbers, attention=attention))
        return [picture if isinstance(picture, ShowtellError) else next(captions) for _, picture in batch]

    def _picture_or_error(self, image: Source | Callable[[], Source]) -> Pixels | ShowtellError:
        """`picture`; a bad image among many is returned as its error, so that the others continue."""
        try:
            return self.picture(image() if callable(image) else image)
        except ShowtellError as error:
            return error

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        """The caption that a hypothesis spells; the pieces of a word (BPE) are put together."""
        specials = (self.tokenizer.pad, self.tokenizer.start, self.tokenizer.end, self.tokenizer.unk)
        places = [place for place, token in enumerate(hypothesis.tokens) if token not in specials]
        tokens = [hypothesis.tokens[place] for place in places]
        text = self.tokenizer.decode(tokens)
        words = tuple(self._parted(text))
        # The word that a token belongs to is the last one of the text up to it.
        belongs = [len(self._parted(self.tokenizer.decode(tokens[: n + 1]))) - 1 for n in range(len(tokens))]
        log_probs = np.zeros(len(words))
        np.add.at(log_probs, belongs, [hypothesis.token_log_probs[place] for place in places])
        attention = None
        if hypothesis.attention is not None:
            rows, columns = self.config.grid
            cells = hypothesis.attention.shape[1]
            looked = np.zeros((len(words), cells), np.float32)
            if cells != rows * columns:
                raise BundleError(
                    f"{self.config.name} attends to {cells} cells, but its config.json says {rows} x {columns}.",
                    "Copy the model folder again.",
                )
            np.add.at(looked, belongs, hypothesis.attention[places])
            looked /= np.bincount(belongs, minlength=len(words))[:, None]
            attention = looked.reshape(len(words), rows, columns)
        caption = Caption(
            text=" ".join(text.split()),
            words=words,
            log_prob=hypothesis.log_prob,
            word_log_probs=tuple(log_probs.tolist()),
            score=hypothesis.score,
            attention=attention,
            finished=hypothesis.finished,
        )
        if self.config.confidence is None:
            return caption
        sure = self.config.confidence
        return replace(caption, confidence=float(sure.of(self.features(caption, sure.rarity))))

    def _parted(self, text: str) -> list[str]:
        """The words of a decoded text, in which letters of a script without spaces are written together."""
        parts = text.split()
        return [w for part in parts for w in (self.tokenizer.words(part) if UNSPACED.search(part) else [part])]


def load(
    model: str | Path | Sequence[str | Path] | None = None,
    *,
    threads: int | None = None,
    engine: EngineName = "auto",
) -> Captioner:
    """Load a captioner: a model folder, a training run, a model of the Hub, or the model that ships with the package.

    Args:
        model: the folder, the name of a shipped model, `hub:org/name[@revision]`, or `hf:org/name` for a captioner of
            transformers (BLIP, GIT, ViT-GPT2, BLIP-2), which may also be a folder of `save_pretrained`. Several models
            caption as an ensemble: the probabilities of the next word are averaged, and the first model has the search
            options. None is `everyday`, which ships with the package.
        threads: how many threads compute one operation of an exported model. None uses one per core, which is
            fastest for a single image. 1 leaves the other cores to other batches of `stream`, or to other requests.
        engine: what runs an exported model. `onnx` is ONNX Runtime. `openvino` is OpenVINO, in bfloat16 if the
            processor has it; `openvino-float32` always uses float32. `torch` is PyTorch. `auto` is OpenVINO
            if it is installed and the processor has bfloat16 (1.5 times as fast), and ONNX Runtime otherwise.

    Raises:
        BundleError: there is no model.
        UsageError: models of an ensemble differ in their words or in how they see an image; or there is no such engine,
            or the model is not exported and an engine is asked for.
        MissingExtraError: the model needs packages that are not installed.
    """
    models = [model] if isinstance(model, str | Path) else list(model or [default_model()])
    if engine not in get_args(EngineName):
        raise UsageError(f"There is no engine '{engine}'.", f"Choose from: {', '.join(get_args(EngineName))}.")
    first, *others = bundles = [load_bundle(each) for each in models]
    if not others:
        return Captioner(_engine(first, threads, engine), first.tokenizer, first.config)
    for other in others:
        _refuse_unless_alike(first, other)
    ensemble = EnsembleEngine([_engine(bundle, threads, engine) for bundle in bundles], len(first.tokenizer))
    return Captioner(ensemble, first.tokenizer, _ensemble_config([bundle.config for bundle in bundles]))


def _refuse_unless_alike(first: Bundle, other: Bundle) -> None:
    """Models form an ensemble if their ids mean the same words and they see images the same way."""
    if first.tokenizer.to_json() != other.tokenizer.to_json():
        raise UsageError(
            f"{first.path} and {other.path} have different words (tokenizer.json), so they can't be an ensemble.",
            "Train both on the same captions with the same tokenizer settings.",
        )
    if first.config.preprocessing != other.config.preprocessing:
        raise UsageError(
            f"{first.path} and {other.path} see images differently (preprocessing in config.json), "
            "so they can't be an ensemble.",
            "Train both with the same image size.",
        )


def _ensemble_config(members: Sequence[BundleConfig]) -> BundleConfig:
    """The first member's config, without what is true only of that member."""
    fingerprints = {config.training.get("feature_fingerprint") for config in members}
    # Cached features are checked against this: features of one member's encoder don't suit another's.
    fingerprint = fingerprints.pop() if len(fingerprints) == 1 else "several that differ"
    changes = {
        "name": " + ".join(config.name for config in members),
        "encoder": {"ensemble": [config.encoder for config in members]},
        "decoder": {"ensemble": [config.decoder for config in members]},
        "confidence": None,
        "scores": {},
        "training": {"feature_fingerprint": fingerprint},
    }
    return members[0].model_copy(update=changes)


def is_one_image(images: object) -> bool:
    """Whether this is a single image and not a collection of them: a path, bytes, an array, an open file."""
    return isinstance(images, ONE_IMAGE) or hasattr(images, "read")


def _engine(bundle: Bundle, threads: int | None, engine: EngineName) -> Engine:
    """The engine for the bundle's weights; no other place chooses it."""
    if bundle.is_exported and engine != "torch":
        return _exported_engine(bundle, threads, engine)
    if engine not in ("auto", "torch"):
        raise UsageError(f"{bundle.path} is not exported, so only PyTorch can run it.", "Run 'showtell export' first.")
    with needs("train", f"The model {bundle.path}"):
        from showtell.engines.torch import TorchEngine
    return TorchEngine.from_bundle(bundle)


def _exported_engine(bundle: Bundle, threads: int | None, engine: EngineName) -> Engine:
    """ONNX Runtime or OpenVINO, without PyTorch."""
    if engine != "onnx" and find_spec("openvino"):
        from showtell.engines.openvino import OpenVinoEngine, has_bfloat16

        if engine != "auto":
            return OpenVinoEngine(bundle.path, threads, "float32" if engine == "openvino-float32" else None)
        if has_bfloat16():
            with suppress(BundleError):  # it can't read int8 convolutions; ONNX Runtime reports damaged files, too
                return OpenVinoEngine(bundle.path, threads)
    elif engine.startswith("openvino"):
        raise MissingExtraError(f"The engine {engine}", "openvino")
    from showtell.engines.onnx import OnnxEngine

    return OnnxEngine(bundle.path, threads)


def in_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last list may be shorter."""
    while batch := list(islice(items, size)):
        yield batch


def done_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, window: int, name: str
) -> Iterator[Result]:
    """`map(work, items)` on threads, at most `window` results ahead of the caller."""
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) >= window:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:  # the caller stopped early, or getting an item failed
                future.cancel()
