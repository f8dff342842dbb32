"""What the examples of README and docs talk about, small and made here: photos, data sets, runs, a Hub, a server."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from showtell.cli import main
from showtell.data import load
from tests.fake_hub import FakeHub, fake_hub

ROOT = Path(__file__).parents[1]
RECIPE = """
name: small
encoder: {name: efficientnet_lite0, size: 64, stages: 6}
tokenizer: {min_count: 1}
decoder: {name: show_attend_and_tell, embedding_width: 16, hidden_width: 16, attention_width: 16}
stages: [{kind: cross_entropy, epochs: 1, batch_images: 8}]
search: {beam: 2, max_words: 8}
"""
ADDRESS = "http://127.0.0.1:8000"  # where the documents have their server
RUN = "small-run"
SHIPPED = ROOT / "src" / "showtell" / "shipped" / "flickr8k"
GIVEN = {
    "captioning": {"runs/model": RUN, "runs/own": RUN},
    "data": {"runs/sat": RUN},
    "serve": {"runs/sat": RUN, "exported/a": SHIPPED, "exported/b": SHIPPED},
}
"""Models that a document uses and does not make, and what they are copies of."""
CAPTIONERS = {
    "Salesforce/blip-image-captioning-base": "blip",
    "microsoft/git-base-coco": "git",
    "nlpconnect/vit-gpt2-image-captioning": "vit_gpt2",
}


def build(folder: Path) -> None:
    """Fill an empty folder, which is the current one."""
    scenes = load("shapes:20").examples
    images = [Image.fromarray(scene.read()) for scene in scenes]
    captions = [list(scene.captions) for scene in scenes]

    def write_photos(place: str, names: Iterable[str], *, first: int = 0) -> None:
        (folder / place).mkdir(parents=True, exist_ok=True)
        for image, name in zip(images[first:], names, strict=False):
            image.save(folder / place / name)

    names = [f"{number:02}.jpg" for number in range(20)]
    write_photos("photos", names[:12])
    write_photos("new", names[:2], first=12)
    write_photos("more", names[:2], first=14)
    write_photos(".", ["photo.jpg", "dog.jpg", "cat.png"], first=16)
    rows = [(f"photos/{name}", text) for name, texts in zip(names[:12], captions, strict=False) for text in texts]
    for table in ("photos.csv", "own.csv", "mine.csv", "references.csv"):
        write_csv(Path(table), rows)
    write_csv(Path("Downloads/album-checked.csv"), [(str(folder / name), text) for name, text in rows])
    each = [{"image": f"photos/{name}", "captions": texts} for name, texts in zip(names[:12], captions, strict=False)]
    write_lines(Path("own80.jsonl"), each)
    write_lines(Path("everyday/photos.jsonl"), [{**row, "image": f"../{row['image']}"} for row in each])
    for number, name in enumerate(("captions.jsonl", "a.jsonl", "b.jsonl")):
        write_lines(Path(name), [{"image": row["image"], "caption": row["captions"][number]} for row in each])

    write_photos("DIR/Images", names)  # Flickr8k, as Kaggle has it
    write_csv(Path("DIR/captions.txt"), [(n, text) for n, texts in zip(names, captions, strict=True) for text in texts])
    write_coco(Path("coco"), images, captions)
    Path("shards").mkdir()
    for number in range(60):  # a photo and its captions in each
        write_tar(Path(f"coco/{number:05}.tar"), images[number % 20], captions[number % 20])
    shutil.copy("coco/00000.tar", "shards/0.tar")
    shutil.copy("coco/00000.tar", "shard.tar")
    write_parquet(Path("data.parquet"), images[:4], captions)
    write_parquet(Path("org/name/train.parquet"), images, captions)

    shutil.copytree(ROOT / "recipes", "recipes")
    Path("small.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["train", "small.yaml", "--data", "shapes:20", "--out", RUN]) == 0


def write_csv(file: Path, rows: list[tuple[str, str]]) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("image", "caption"), *rows])


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_coco(folder: Path, images: list[Image.Image], captions: list[list[str]]) -> None:
    (folder / "annotations").mkdir(parents=True)
    for split, numbers in (("train", range(16)), ("val", range(16, 20))):
        (folder / f"{split}2014").mkdir()
        named = [{"id": n, "file_name": f"COCO_{split}2014_{n:012}.jpg"} for n in numbers]
        for entry in named:
            images[entry["id"]].save(folder / f"{split}2014" / entry["file_name"])
        said = [
            {"image_id": n, "id": 9 * n + k, "caption": text} for n in numbers for k, text in enumerate(captions[n])
        ]
        content = json.dumps({"images": named, "annotations": said})
        (folder / f"annotations/captions_{split}2014.json").write_text(content, encoding="utf-8")


def encoded(image: Image.Image) -> bytes:
    image.save(buffer := io.BytesIO(), "JPEG")
    return buffer.getvalue()


def write_tar(file: Path, image: Image.Image, captions: list[str]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in ((f"{file.stem}.jpg", encoded(image)), (f"{file.stem}.txt", "\n".join(captions).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_parquet(file: Path, images: list[Image.Image], captions: list[list[str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": encoded(image), "path": f"{n}.jpg"} for n, image in enumerate(images)]
    parquet.write_table(pa.table({"image": cells, "sentences": captions[: len(images)]}), file)


def hub(captioners: Path, run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[FakeHub]:
    """A Hub on this machine: of the captioners that `write_captioners` wrote, and of a run as `museum/captions`."""
    folders = {name: captioners / kind for name, kind in CAPTIONERS.items()} | {"museum/captions": run / "model"}
    commits = {
        name: [{path.name: path.read_bytes() for path in folder.iterdir()}]
        for name, folder in folders.items()
        if folder.exists()
    }
    return fake_hub(commits, cache, monkeypatch)


def write_captioners(folder: Path) -> None:
    """Small ones with random weights, of the classes of those that the documents name."""
    from tests.small_captioners import write

    for kind in CAPTIONERS.values():
        write(kind, folder / kind, steps=20)


class Server:
    """A `showtell serve` that runs, or none yet."""

    process: subprocess.Popen[str] | None = None
    url = ""

    def start(self, words: list[str]) -> int:
        self.stop()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "showtell", *words, "--port", "0"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        said = ""
        while not (found := re.search(r" at (http://\S+)", said)):
            line = self.process.stderr.readline()
            assert line, said
            said += line
        self.url = found[1]
        with urlopen(f"{self.url}/readyz", timeout=60) as answer:
            assert answer.status == 200
        return 0

    def ask(self, words: list[str]) -> int:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        asked = [word.replace(ADDRESS, self.url) for word in words[1:]]
        done = subprocess.run(["curl", "--fail", "--silent", *asked], capture_output=True, text=True, check=False)
        assert '"captions"' in done.stdout
        return done.returncode

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            assert self.process.wait(60) == 0 or os.name == "nt"  # where it can't be asked to stop
            assert self.process.stderr
            self.process.stderr.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
