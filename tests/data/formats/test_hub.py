"""Hugging Face data sets from folders here, kept and streamed: columns, splits, images in any order."""

import io
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from showtell import data
from showtell.data import Dataset
from showtell.data.formats.hub import HubImage, Stream
from showtell.errors import DataError, ImageError, MissingExtraError, UsageError

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")

KEPT = ("", ",streaming")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the user's cache, and nobody is asked on the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file, "png")
    return file.getvalue()


def write(folder: Path, file: str, shades: Sequence[int], **columns: Sequence[object]) -> Path:
    """A Parquet file as the Hub has them; images are structs of bytes and path."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(shade), "path": f"{shade}.png"} for shade in shades]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(images, kind), **columns})
    hints = {"info": {"features": {"image": {"_type": "Image"}}}}
    for name in columns:
        example = columns[name][0]
        kind = {"dtype": "string" if not isinstance(example, int) else "int64", "_type": "Value"}
        hints["info"]["features"][name] = {"feature": kind, "_type": "List"} if isinstance(example, list) else kind
    table = table.replace_schema_metadata({"huggingface": json.dumps(hints)})
    parquet.write_table(table, folder / f"{file}-00000-of-00001.parquet")
    return folder


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {example.image_id: example.captions for example in dataset.examples}


def shades(dataset: Dataset) -> list[int]:
    return [int(example.read()[0, 0, 0]) for example in dataset.examples]


@pytest.mark.parametrize("kept", KEPT)
def test_columns_and_splits_are_found(tmp_path: Path, kept: str) -> None:
    write(tmp_path / "d", "train", [1, 2], captions=[["one", "eins "], ["two"]])
    write(tmp_path / "d", "validation", [3], captions=[["three"]])
    dataset = data.load(f"hub:{tmp_path}/d{kept}")
    assert list(captions(dataset).values()) == [("one", "eins"), ("two",), ("three",)]
    assert [example.split for example in dataset.examples] == ["train", "train", "dev"]
    assert dataset.name == "d"
    assert dataset.notes == ()
    assert shades(dataset) == [1, 2, 3]
    assert list(reversed([int(e.read()[0, 0, 0]) for e in reversed(dataset.examples)])) == [1, 2, 3]


@pytest.mark.parametrize("kept", KEPT)
def test_rows_with_the_same_id_are_one_image(tmp_path: Path, kept: str) -> None:
    """One row a caption: an image in several splits would be trained and tested on."""
    ids = [7, 8, 7, 9, 8, *range(20, 40)]
    texts = [f"{image_id}, {row}" for row, image_id in enumerate(ids)]
    write(tmp_path, "train", ids, image_id=ids, caption=texts)
    dataset = data.load(f"hub:{tmp_path}{kept}")
    assert captions(dataset)["7"] == ("7, 0", "7, 2")
    assert captions(dataset)["8"] == ("8, 1", "8, 4")
    assert shades(dataset) == [7, 8, 9, *range(20, 40)]
    assert dataset.splits == ("train", "dev", "test")
    assert "80/10/10" in dataset.notes[0]


def test_images_of_no_split_do_not_slip_into_training(tmp_path: Path) -> None:
    write(tmp_path / "d", "train", [1, 2, 3], text=["train", "test", "kept"], split=["train", "test", "kept"])
    dataset = data.load(f"hub:{tmp_path}/d")
    assert [(example.split, example.captions[0]) for example in dataset.examples] == [
        ("train", "train"),
        ("test", "test"),
    ]
    assert dataset.notes == ("Images left out because nothing names their split: 1.",)


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d", "train", [1, 1], text=["a", "b"], split=["train", "test"])
    with pytest.raises(DataError, match=r"1\.png is in train and in test"):
        data.load(f"hub:{tmp_path}/d")


def test_names_of_images_are_their_ids_where_no_column_is(tmp_path: Path) -> None:
    write(tmp_path, "train", [1, 2, 1], text=["a", "b", "c"])
    dataset = data.load(f"hub:{tmp_path}")
    assert captions(dataset) == {"1.png": ("a", "c"), "2.png": ("b",)}
    assert [example.stored.stamp for example in dataset.examples if example.stored] == [
        str(len(png(1))),
        str(len(png(2))),
    ]


def test_columns_that_are_asked_for(tmp_path: Path) -> None:
    write(
        tmp_path,
        "test",
        [1, 2, 3],
        caption_0=["a", "b", "c"],
        caption_1=["A", "B", ""],
        re=["x", "y", "z"],
        part=["train", "val", "test"],
        number=[5, 6, 7],
    )
    numbered = data.load(f"hub:{tmp_path},split=part,id=number")
    assert captions(numbered) == {"5": ("a", "A"), "6": ("b", "B"), "7": ("c",)}
    assert [example.split for example in numbered.examples] == ["train", "dev", "test"]
    assert captions(data.load(f"hub:{tmp_path},caption=re,id=number"))["6"] == ("y",)
    assert captions(data.load(f"hub:{tmp_path},caption=caption_*,id=number"))["6"] == ("b", "B")


def test_ids_that_two_parts_use_are_two_images(tmp_path: Path) -> None:
    write(tmp_path, "train", [1, 2], id=[0, 1], caption=["a", "b"], image_id=[0, 1])
    write(tmp_path, "test", [3], id=[0], caption=["c"], image_id=[0])
    dataset = data.load(f"hub:{tmp_path}")
    assert captions(dataset) == {"train/0": ("a",), "train/1": ("b",), "test/0": ("c",)}
    assert shades(dataset) == [1, 2, 3]


def test_a_folder_of_images_with_metadata(tmp_path: Path) -> None:
    """`imagefolder`: images are files, and the table holds their paths."""
    (tmp_path / "train").mkdir()
    for shade in (1, 2):
        (tmp_path / "train" / f"{shade}.png").write_bytes(png(shade))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\n1.png,one\n2.png,two\n")
    dataset = data.load(f"hub:{tmp_path}")
    assert captions(dataset) == {"1.png": ("one",), "2.png": ("two",)}
    assert shades(dataset) == [1, 2]
    (tmp_path / "train" / "2.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"train: 2\.png is not an image"):
        dataset.examples[1].read()
    (tmp_path / "train" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png can't be read: No such file"):
        dataset.examples[1].read()


@pytest.mark.parametrize("kept", KEPT)
def test_bytes_that_nobody_called_images(tmp_path: Path, kept: str) -> None:
    """As pandas and polars write them; names may be left out."""
    rows = [{"photo": {"bytes": png(shade)}, "text": str(shade)} for shade in (1, 2)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    dataset = data.load(f"hub:{tmp_path}{kept}")
    assert captions(dataset) == {"00000000": ("1",), "00000001": ("2",)}
    assert shades(dataset) == [1, 2]


def test_saved_to_disk(tmp_path: Path) -> None:
    write(tmp_path / "d", "train", [1, 2], caption=["a", "b"])
    datasets.load_dataset(str(tmp_path / "d"))["train"].save_to_disk(str(tmp_path / "saved"))
    assert shades(data.load(f"hub:{tmp_path / 'saved'}")) == [1, 2]


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "d", "train", [1], label=["x"], caption=[""])
    for where, message in (
        ("d,caption=words", "d has no caption column; its columns are image, label, caption. Name it: hub:"),
        ("d,image=photo", "d has no image column"),
        ("d,image=label", "d has no image column"),
        ("d,id=key", "d has no column 'key'; its columns are image, label, caption."),
        ("d", "d has no captions in caption."),
        ("nothing", "nothing can't be opened: "),
    ):
        with pytest.raises(DataError) as caught:
            data.load(f"hub:{tmp_path}/{where}")
        assert message in str(caught.value)
    with pytest.raises(
        UsageError,
        match=r"hub:d,colour=x has an unknown setting 'colour=x'\. Choose from: image=, .*revision=, streaming\.",
    ):
        data.load("hub:d,colour=x")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"Hugging Face data sets .* 'showtell\[datasets\]'"):
        data.load(f"hub:{tmp_path}/d")


class CountedStream:
    """A stream of numbers; counts how often it begins, and how many rows came."""

    def __init__(self, length: int) -> None:
        self.length, self.begun, self.came = length, 0, 0

    def skip(self, rows: int) -> Any:
        self.begun += 1

        def rest() -> Any:
            for number in range(rows, self.length):
                self.came += 1
                yield {"x": number}

        return rest()


def test_threads_that_ask_nearly_in_order_read_a_stream_once() -> None:
    counted = CountedStream(2000)
    stream = Stream(counted)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: stream[number]["x"], range(2000)))
    assert found == list(range(2000))
    assert (counted.begun, counted.came) == (1, 2000)
    assert stream[5]["x"] == 5
    assert stream[3]["x"] == 3
    assert counted.begun == 3
    assert [stream[number]["x"] for number in range(10, 1990, 3)] == list(range(10, 1990, 3))
    assert counted.begun == 3


def test_a_stream_that_has_become_shorter() -> None:
    row = HubImage("name", "d", "0", Stream(CountedStream(3)), "x", 5)
    with pytest.raises(DataError, match="name can't be read: the stream has become shorter"):
        row.read()
