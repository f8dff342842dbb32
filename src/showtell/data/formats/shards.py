"""Tar shards as WebDataset and img2dataset write them: `shards:URLS[,caption=FIELD][,split=FIELD]`.

URLS are files or addresses, with braces (`coco-{000..059}.tar`), wildcards, or folders; several are joined by `::`.
Consecutive files of a shard whose names are equal up to the first dot are a sample: an image, and its captions in
`.txt`, one per line, or else in a field of `.json`. Splits are in a field of `.json`, or in the names of the shards.

A stream of samples, shuffled on the way, would give neither a fixed order for a seed nor an exact resume. So a first
pass lists where each image is and what its captions are (each shard's list is kept in the cache folder), and
images are then read from their place, in any order.
"""

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from showtell.data.captions import captions_of, empty_captions, tidy
from showtell.data.dataset import SPLIT_NAMES, Dataset, Example, Split
from showtell.data.formats.layout import common_folder, settings_of, split_by_name
from showtell.errors import DataError, UsageError, needs
from showtell.files import as_text, cache_folder, fitting, write_file
from showtell.images.decode import SUFFIXES
from showtell.images.names import is_passed_over, is_remote, writable
from showtell.images.storage import ByteRange, size_and_version
from showtell.images.tables import COLUMNS
from showtell.images.tar import Member, TarError, members

SYNTAX = "URLS[,caption=FIELD][,split=FIELD][,encoding=NAME]"

LIST_FORMAT = 2
READERS = 8
SETTINGS = ("caption", "split", "encoding")
SAMPLE_FILE = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<extension>[^/]*)")  # as webdataset splits them
IMAGE_EXTENSIONS = {suffix.removeprefix(".") for suffix in SUFFIXES}

Settings = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """A usable sample in a shard's list."""

    key: str
    image: str
    """The name of the image's file."""
    offset: int
    length: int
    captions: list[str]
    split: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A shard's samples, and the keys of others that are left out, by reason."""

    samples: list[Sample]
    left_out: dict[str, list[str]]
    empty: int
    """Captions of the samples that are empty, null or no text."""


def load(where: str, *, photos: bool = True) -> Dataset:
    """The data set in the shards.

    Raises:
        DataError: a shard is missing or not a tar file, or no sample has an image and a caption.
        UsageError: a setting is unknown.
    """
    pattern, settings = settings_of(f"shards:{where}", SETTINGS)
    shards = expanded(pattern)
    with ThreadPoolExecutor(READERS, thread_name_prefix="showtell-list") as threads:
        listings = list(threads.map(lambda shard: listing(shard, settings), shards))
    samples = _by_image(shards, listings)
    told = {image_id: sample.split for image_id, (_, sample) in samples.items()}
    named = {image_id: _split_of_name(shard) for image_id, (shard, _) in samples.items()}
    splits, notes = split_by_name(told, named, "Neither samples nor shards name train, dev and test", settings)
    examples = tuple(
        Example(
            image_id,
            splits[image_id],
            tuple(sample.captions),
            stored=ByteRange(f"{shard}: {sample.image}", shard, sample.offset, sample.length),
        )
        for image_id, (shard, sample) in samples.items()
        if image_id in splits
    )
    left_out = _left_out(shards, listings) + empty_captions(sum(found.empty for found in listings))
    if not examples:
        raise DataError(
            f"{shards[0]} has no image with a caption."
            if len(shards) == 1
            else f"{len(shards)} shards have no image with a caption.",
            " ".join(left_out) or "Looked for KEY.jpg with KEY.txt or KEY.json.",
        )
    return Dataset("shards", examples, notes=(*left_out, *notes))


def expanded(pattern: str) -> list[str]:
    """The shards that braces, wildcards and folders stand for. Raises DataError if one stands for none."""
    with needs("shards", "Reading shards"):
        from braceexpand import braceexpand
    shards: list[str] = []
    for part in pattern.split("::"):
        try:
            found = list(braceexpand(part))
        except ValueError:
            raise UsageError(f"The braces in '{part}' are not balanced.") from None
        for name in found:
            shards += [name] if is_remote(name) else _local(str(Path(name.removeprefix("file:")).expanduser()))
    twice = next((shard for shard, times in Counter(shards).items() if times > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice.")
    return shards


def listing(shard: str, settings: Settings) -> Listing:
    """A shard's samples, from the cache folder or, the first time, from the shard. Raises DataError."""
    try:
        size, version = size_and_version(shard)
    except OSError as error:
        raise DataError(f"{shard} can't be opened: {error.strerror or 'there is no such file'}.") from None
    address = shard if is_remote(shard) else str(Path(shard).resolve())
    facts = [LIST_FORMAT, address, size, version, *sorted(settings.items())]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = cache_folder() / "shards" / f"{fitting(Path(shard).stem, 200)}-{digest}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Listing([Sample(**sample) for sample in kept["samples"]], kept["left_out"], kept["empty"])
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not ours: make it again
        pass
    found = read_listing(shard, settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(asdict(found), ensure_ascii=False), flush=False)
    return found


def read_listing(shard: str, settings: Settings) -> Listing:
    """A shard's samples, from a pass over it. Raises DataError."""
    samples: dict[str, Sample] = {}
    left_out: dict[str, list[str]] = {}
    empty = 0
    try:
        for key, images, texts in _samples(shard):
            found = "its name was used before" if key in samples else _sample(key, images, texts, settings)
            if isinstance(found, Sample):
                samples[key] = replace(found, captions=list(filter(None, found.captions)))
                empty += found.captions.count("")
            else:
                left_out.setdefault(found, []).append(key)
    except _CutOff as error:
        left_out["the shard is cut off in or after it"] = [error.key]
    return Listing(list(samples.values()), left_out, empty)


class _CutOff(Exception):
    """The shard ends too early."""

    def __init__(self, key: str) -> None:
        self.key = key


def _samples(shard: str) -> Iterator[tuple[str, dict[str, Member], dict[str, bytes]]]:
    """Keys, each with its images and texts by extension. Raises DataError, and _CutOff at an incomplete sample."""
    key, images, texts = "", dict[str, Member](), dict[str, bytes]()
    try:
        for member in members(shard):
            name = writable(member.name)
            match = SAMPLE_FILE.fullmatch(name)
            if match is None or is_passed_over(name):
                continue
            if match["key"] != key and key:
                yield key, images, texts
                images, texts = {}, {}
            key, extension = match["key"], match["extension"].lower()
            if extension in IMAGE_EXTENSIONS:
                images.setdefault(extension, replace(member, name=name))
            elif extension in ("txt", "json") and extension not in texts:
                texts[extension] = member.read()
    except TarError as error:
        if not key:
            raise
        raise _CutOff(key) from error
    if key:
        yield key, images, texts


def _sample(key: str, images: Mapping[str, Member], texts: Mapping[str, bytes], settings: Settings) -> Sample | str:
    """The sample, with empty texts for what is not a caption; or why it is left out."""
    image = next(iter(images.values()), None)
    if image is None:
        return "there is no image"
    if not image.size:
        return "the image is empty"
    fields: Any = {}
    try:
        text = as_text(texts.get("txt", b""), settings.get("encoding", "utf-8"))
        if "json" in texts:
            fields = json.loads(texts["json"])
    except ValueError:
        return f"the text is not {settings.get('encoding', 'utf-8').upper()} or the JSON is damaged"
    if not isinstance(fields, dict):
        fields = {"caption": fields}  # a list of captions, or one
    try:
        if text.strip() and "caption" not in settings:
            captions = [c for line in text.split("\n") if line.strip() for c in captions_of(line)]
        else:
            captions = _field_captions(fields, settings)
    except DataError:
        return "its captions begin like a list but can't be read as one"
    captions = list(map(tidy, captions))
    if not any(captions):
        return "there is no caption"
    split = next((fields[name] for name in _names("split", settings) if name in fields), None)
    return Sample(key, image.name, image.offset, image.size, captions, split if isinstance(split, str) else None)


def _field_captions(fields: Mapping[str, Any], settings: Settings) -> list[str]:
    """The captions in the requested field, or in one with a well-known name. Raises DataError."""
    found = (captions_of(fields.get(name)) for name in _names("caption", settings))
    return next(filter(any, found), [])


def _names(role: str, settings: Settings) -> Sequence[str]:
    return (settings[role],) if role in settings else COLUMNS[role]


def _by_image(shards: Sequence[str], listings: Sequence[Listing]) -> dict[str, tuple[str, Sample]]:
    """Image -> its shard and sample; named by the sample's key, after the shard's if two shards share a key."""
    pairs = [(shard, sample) for shard, found in zip(shards, listings, strict=True) for sample in found.samples]
    unique = len({sample.key for _, sample in pairs}) == len(pairs)
    common = common_folder(shards)
    return {
        sample.key if unique else f"{shard.removeprefix(common).removesuffix('.tar')}/{sample.key}": (shard, sample)
        for shard, sample in pairs
    }


def _split_of_name(shard: str) -> Split | None:
    """The split in the name of a shard or of its folder: coco-train-0001.tar, val2017/0001.tar."""
    folder, name = os.path.split(shard.lower())
    for words in (re.split(r"[^a-z]+", name), re.split(r"[^a-z]+", os.path.basename(folder))):  # noqa: PTH119
        found = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        if found is not None:
            return found
    return None


def _left_out(shards: Sequence[str], listings: Sequence[Listing]) -> list[str]:
    """A sentence for each reason why samples are left out."""
    reasons: dict[str, list[str]] = {}
    for shard, found in zip(shards, listings, strict=True):
        for reason, keys in found.left_out.items():
            reasons.setdefault(reason, []).extend(f"{key} in {shard}" for key in keys)
    return [f"Samples left out because {reason}: {len(keys):,}, such as {keys[0]}." for reason, keys in reasons.items()]


def _local(name: str) -> list[str]:
    """The shards in a folder, those that a wildcard stands for, or the file itself. Raises DataError."""
    if os.path.isdir(name):  # noqa: PTH112
        found = sorted(glob.glob(os.path.join(glob.escape(name), "*.tar")))  # noqa: PTH118, PTH207
    elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
        found = sorted(glob.glob(name))  # noqa: PTH207
    else:
        return [name]
    if not found:
        raise DataError(f"{name} holds no shards.", "Looked for files that end with .tar.")
    return found
