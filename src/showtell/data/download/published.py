"""The data sets that can be downloaded: from where, with which checksums, and under which terms.

Sizes and SHA-256 of COCO's and Karpathy's archives are those that TensorFlow Datasets 4.9 checks with
(`url_checksums/coco_captions.txt`); MD5 of Flickr8k's are those of torchvision for R (`R/dataset-flickr.R`).
COCO's host has no https certificate of its own: the checksums make its files safe to use.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from showtell.data.download.fetching import RemoteFile, check, fetch, need_space
from showtell.data.download.unpacking import unpack
from showtell.errors import DataError, UsageError
from showtell.files import write_file

RECORD = "downloaded.json"  # in the data set's folder: what was unpacked there, and from where

StepDone = Callable[[str, int, int], None]
"""Called with what is being done, the number of bytes done, and of all bytes."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file to fetch, and which of its files are unpacked."""

    file: RemoteFile
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A data set that can be downloaded."""

    what: str
    archives: tuple[Archive, ...]
    spec: str
    """The SPEC for `showtell.data.load`, with {folder}."""
    terms: str
    then: str = ""
    """What the user must still do by hand."""
    agreed: bool = True
    """False if people must accept the terms."""


def _coco(path: str, sha256: str, size: int, wanted: str) -> Archive:
    return Archive(RemoteFile(f"http://images.cocodataset.org/{path}", f"sha256:{sha256}", size), (wanted,))


def _flickr8k(name: str, md5: str, *wanted: str) -> Archive:
    url = f"https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/{name}"
    return Archive(RemoteFile(url, f"md5:{md5}"), wanted)


def _karpathy(wanted: str) -> Archive:
    url = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
    sha256 = "4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817"
    return Archive(RemoteFile(url, f"sha256:{sha256}", 36_745_453), (wanted,))


COCO_TERMS = "Captions: CC BY 4.0. Photos: as their owners on Flickr say (https://cocodataset.org/#termsofuse)."
FLICKR30K_FORM = "https://shannon.cs.illinois.edu/DenotationGraph/"

PUBLISHED = {
    "flickr8k": Published(
        "8,000 photos with 5 captions each, and the official split (1.1 GB)",
        (
            _flickr8k(
                "Flickr8k_text.zip",
                "bf6c1abcb8e4a833b7f922104de18627",
                "Flickr8k.token.txt",
                "Flickr_8k.*Images.txt",
                "readme.txt",
            ),
            _flickr8k("Flickr8k_Dataset.zip", "f18a1e2920de5bd84dae7cf08ec78978", "Flicker8k_Dataset/*.jpg"),
        ),
        "flickr8k:{folder}",
        "Flickr8k is for non-commercial research and teaching only, and its photos belong to their owners on Flickr. "
        "Its publisher (University of Illinois) no longer gives it out; this is a third party's copy on GitHub "
        "(jbrownlee/Datasets).",
        agreed=False,
    ),
    "flickr30k-splits": Published(
        "captions and Karpathy's split of Flickr30k, without the photos (37 MB)",
        (_karpathy("dataset_flickr30k.json"),),
        "karpathy:{folder}/dataset_flickr30k.json,IMAGES",
        "Captions: for research, as Flickr30k's publisher says.",
        f"IMAGES is the folder of Flickr30k's photos, which you get with the form on {FLICKR30K_FORM}",
    ),
    "coco2014": Published(
        "123,287 photos with 5 captions each: train and val of 2014 (20 GB)",
        (
            _coco(
                "annotations/annotations_trainval2014.zip",
                "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
                252_872_794,
                "annotations/captions_*.json",
            ),
            _coco(
                "zips/val2014.zip",
                "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
                6_645_013_297,
                "val2014/*.jpg",
            ),
            _coco(
                "zips/train2014.zip",
                "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                13_510_573_713,
                "train2014/*.jpg",
            ),
        ),
        "coco:{folder},2014",
        COCO_TERMS,
    ),
    "coco2017": Published(
        "the same photos in another split: train and val of 2017 (20 GB)",
        (
            _coco(
                "annotations/annotations_trainval2017.zip",
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                252_907_541,
                "annotations/captions_*.json",
            ),
            _coco(
                "zips/val2017.zip",
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                815_585_330,
                "val2017/*.jpg",
            ),
            _coco(
                "zips/train2017.zip",
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                19_336_861_798,
                "train2017/*.jpg",
            ),
        ),
        "coco:{folder},2017",
        COCO_TERMS,
    ),
    "karpathy": Published(
        "captions and Karpathy's splits of COCO, Flickr30k and Flickr8k, without photos (37 MB)",
        (_karpathy("dataset_*.json"),),
        "karpathy:{folder}/dataset_coco.json,IMAGES",
        "Captions: as the three data sets' publishers say; COCO's are CC BY 4.0.",
        "IMAGES is the folder of COCO's train2014/ and val2014/: showtell data download coco2014",
    ),
}

ELSEWHERE = {
    "flickr30k": f"Its photos are given out on request only, for research: fill in the form on {FLICKR30K_FORM} "
    "(captions and split alone: showtell data download flickr30k-splits)",
}
"""Data sets that a program may not download, and what to do instead."""


def find(name: str) -> Published:
    """The data set of that name. Raises UsageError, with the way out, if it can't be downloaded."""
    if name in ELSEWHERE:
        raise UsageError(f"{name} can't be downloaded by a program.", ELSEWHERE[name])
    if name not in PUBLISHED:
        raise UsageError(f"There is no data set '{name}' to download.", f"Choose from: {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def download(
    published: Published,
    folder: Path,
    *,
    keep_archives: bool = False,
    progress: StepDone = lambda what, done, total: None,
) -> None:
    """Fetch the archives that are not unpacked yet, check and unpack them.

    Args:
        published: the data set.
        folder: where it goes. An archive that is already there is checked and used.
        keep_archives: whether archives are kept after unpacking.
        progress: called while bytes arrive and are unpacked.

    Raises:
        DataError: an archive can't be fetched, is not what was published, or the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder)
    todo = [archive for archive in published.archives if not _is_unpacked(archive, folder, record)]
    if not any(folder.iterdir()):  # later, each archive is checked, once the room that it needs is known exactly
        sizes = [archive.file.size or 0 for archive in todo]
        archives = sum(sizes) if keep_archives else max(sizes)  # photos are as large inside an archive as outside
        need_space(folder, sum(sizes) + archives, "Downloading and unpacking this data set")
    for archive in todo:
        file = archive.file
        path = folder / file.name
        if path.is_file():
            check(file, path)
        else:
            fetch(file, path, partial(progress, f"fetching {file.name}"))
        names = unpack(path, folder, archive.wanted, partial(progress, f"unpacking {file.name}"))
        record[file.name] = {"url": file.url, "checked": file.digest, "wanted": list(archive.wanted), "names": names}
        write_file(folder / RECORD, json.dumps(record, indent=2) + "\n")
        if not keep_archives:
            path.unlink()


def _is_unpacked(archive: Archive, folder: Path, record: dict[str, Any]) -> bool:
    """Whether an earlier call has unpacked the same files of this archive, and they still exist."""
    entry = record.get(archive.file.name, {})
    same = entry.get("checked") == archive.file.digest and entry.get("wanted") == list(archive.wanted)
    return same and all((folder / name).exists() for name in entry["names"])


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{folder / RECORD} is not JSON: {error}.", "Remove it.") from None
    return record if isinstance(record, dict) else {}
