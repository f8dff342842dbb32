"""The format of a file or a folder, if the user names none."""

from itertools import islice
from pathlib import Path
from typing import Any

from showtell.data.formats import flickr8k, flickr30k
from showtell.data.formats.coco import ANNOTATION_FILE
from showtell.files import read_json, suffix_of
from showtell.images.names import is_shard_name

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".pq")


def format_of(spec: str) -> str | None:
    """The format of a file or folder, with or without settings after it; None if nothing or nothing known is there.

    Raises:
        DataError: it is JSON that can't be read.
    """
    path = Path(spec.partition(",")[0]).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        return None
    if is_shard_name(path.name):
        return "shards"
    if suffix_of(path) == ".json":
        return _of_json(read_json(path))
    return "table" if suffix_of(path) in TABLES else None


def _of_folder(folder: Path) -> str | None:
    names = [path.name for path in islice(folder.iterdir(), 100_000)]
    below = [path.name for path in (folder / "annotations").glob("*.json")]
    if any(map(ANNOTATION_FILE.fullmatch, (*names, *below))):
        return "coco"
    for name, files in (("flickr8k", flickr8k.CAPTION_FILES), ("flickr30k", flickr30k.CAPTION_FILES)):
        if any((folder / file).is_file() for file in files):
            return name
    if {"dataset_dict.json", "state.json"} & {*names} or any(name.endswith(".parquet") for name in names):
        return "hub"
    if any(map(is_shard_name, names)):
        return "shards"
    return "folder" if any(folder.rglob("*.[tT][xX][tT]")) else None


def _of_json(content: Any) -> str | None:
    if isinstance(content, list):
        return "table"
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images or not isinstance(images[0], dict):
        return None
    return "karpathy" if "sentences" in images[0] else "coco" if "annotations" in content else None
