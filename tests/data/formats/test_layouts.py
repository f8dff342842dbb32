"""Each format in each layout that is found in the wild, and what is said of one that isn't understood."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from showtell import data
from showtell.data import Dataset
from showtell.data.dataset import split_by_image
from showtell.errors import DataError, MissingExtraError, UsageError


def draw(folder: Path, *names: str) -> None:
    """Small image files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / name)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {example.image_id: example.captions for example in dataset.examples}


def splits(dataset: Dataset) -> dict[str, str]:
    return {example.image_id: example.split for example in dataset.examples}


ABC = ("a.jpg", "b.jpg", "c.jpg")


# ------------------------------------------------------------------------------------------------- flickr8k


def flickr8k_splits(root: Path, **images: str) -> None:
    for split, names in images.items():
        write(root / f"Flickr_8k.{split}Images.txt", names.replace(" ", "\n") + "\n")


@pytest.mark.parametrize("folder", ["Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset"])
def test_flickr8k_from_kaggle(tmp_path: Path, folder: str) -> None:
    """Commas and quotation marks in captions, quoted or not; blanks before the full stop stay."""
    draw(tmp_path / folder, *ABC)
    write(
        tmp_path / "captions.txt",
        'image,caption\na.jpg,A dog runs .\na.jpg,"A dog , a cat and a "" sign "" ."\n'
        'b.jpg,Two dogs, one ball .\nb.jpg,A stray " mark\n\nc.jpg,  Snow   falls  \n',
    )
    flickr8k_splits(tmp_path, train="a.jpg", dev="b.jpg", test="c.jpg")
    dataset = data.load(f"flickr8k:{tmp_path}")
    assert captions(dataset) == {
        "a.jpg": ("A dog runs .", 'A dog , a cat and a " sign " .'),
        "b.jpg": ("Two dogs, one ball .", 'A stray " mark'),
        "c.jpg": ("Snow falls",),
    }
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "dev", "c.jpg": "test"}
    assert dataset.splits == ("train", "dev", "test")
    assert dataset.notes == ()
    assert dataset.examples[0].path == tmp_path / folder / "a.jpg"
    assert dataset.examples[0].read().shape == (8, 8, 3)


@pytest.mark.parametrize("folder", [".", "Flickr8k_text"])
def test_flickr8k_original(tmp_path: Path, folder: str) -> None:
    draw(tmp_path / "Flicker8k_Dataset", *ABC)
    write(
        tmp_path / folder / "Flickr8k.token.txt",
        "a.jpg#0\tOne .\na.jpg#1\tTwo .\nb.jpg#0\tThree .\nc.jpg#0\tFour .\n",
    )
    flickr8k_splits(tmp_path / folder, train="a.jpg b.jpg", dev="c.jpg")
    dataset = data.load(f"flickr8k:{tmp_path}")
    assert captions(dataset) == {"a.jpg": ("One .", "Two ."), "b.jpg": ("Three .",), "c.jpg": ("Four .",)}
    assert dataset.splits == ("train", "dev")
    assert dataset.notes == ("There is no Flickr_8k.testImages.txt.",)


def test_flickr8k_bad_row_of_the_published_file(tmp_path: Path) -> None:
    """2258277193_586949ec62.jpg.1 names no file: its captions go to the name without .1, and that is said."""
    name = "2258277193_586949ec62.jpg"
    draw(tmp_path / "Images", "a.jpg", name)
    write(
        tmp_path / "Flickr8k.token.txt",
        f"{name}.1#0\tPeople walk .\n{name}.1#1\tA crowd .\na.jpg#0\tA dog .\n",
    )
    dataset = data.load(f"flickr8k:{tmp_path}")
    assert captions(dataset)[name] == ("People walk .", "A crowd .")
    assert f"The captions of {name}.1 are used for {name}." in dataset.notes


def test_flickr8k_leaves_out_what_no_split_file_names(tmp_path: Path) -> None:
    """An image outside the official splits must not slip into training."""
    draw(tmp_path / "Images", *ABC)
    write(tmp_path / "captions.txt", "image,caption\na.jpg,A\nb.jpg,B\nc.jpg,C\n")
    flickr8k_splits(tmp_path, train="a.jpg", test="b.jpg d.jpg")
    dataset = data.load(f"flickr8k:{tmp_path}")
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "test"}
    assert dataset.notes == (
        "There is no Flickr_8k.devImages.txt.",
        "Images left out because no split file names them: 1.",
        "Images left out because they have no caption: 1.",
    )


def test_missing_files_are_counted(tmp_path: Path) -> None:
    draw(tmp_path / "Images", "a.jpg")
    write(tmp_path / "captions.txt", "image,caption\na.jpg,A\nb.jpg,B\n")
    dataset = data.load(f"flickr8k:{tmp_path}")
    assert dataset.missing == (str(tmp_path / "Images" / "b.jpg"),)
    assert list(captions(dataset)) == ["a.jpg"]


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "Images", *ABC)
    write(tmp_path / "captions.txt", "image,caption\na.jpg,A\n")
    flickr8k_splits(tmp_path, train="a.jpg", dev="a.jpg")
    with pytest.raises(DataError, match=r"devImages\.txt has a\.jpg, which is in the train split too"):
        data.load(f"flickr8k:{tmp_path}")


def test_flickr8k_layouts_that_are_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Name the folder"):
        data.load(f"flickr8k:{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"no file of captions\. Looked for captions\.txt, .*; found nothing\."):
        data.load(f"flickr8k:{tmp_path}")
    file = write(tmp_path / "captions.txt", "name|text\n")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"no folder of images\. Looked for Images, .*; found captions\.txt, photos/"):
        data.load(f"flickr8k:{tmp_path}")
    draw(tmp_path / "Images", "a.jpg")
    with pytest.raises(DataError, match=r"captions\.txt begins with 'name\|text', not with 'image,caption'"):
        data.load(f"flickr8k:{tmp_path}")
    write(file, "image,caption\nx.jpg,A\n")
    with pytest.raises(DataError, match=r"all 1 image files are missing\. The first is .*x\.jpg"):
        data.load(f"flickr8k:{tmp_path}")
    write(file, "image,caption\na.jpg,\n")
    with pytest.raises(DataError, match="no image has a caption"):
        data.load(f"flickr8k:{tmp_path}")
    file.write_bytes(b"image,caption\na.jpg,caf\xe9\n")
    with pytest.raises(DataError, match=r"captions\.txt is not UTF-8 text \(byte 23\)"):
        data.load(f"flickr8k:{tmp_path}")
    file.unlink()
    write(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tA\na.jpg B\n")
    with pytest.raises(DataError, match=r"token\.txt, line 2 is not 'image\.jpg#0<tab>caption': 'a\.jpg B'"):
        data.load(f"flickr8k:{tmp_path}")


def test_many_files_are_not_all_listed(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"{number:02}.dat", "")
    with pytest.raises(DataError, match=r"found 00\.dat, .*07\.dat and 12 more\."):
        data.load(f"flickr8k:{tmp_path}")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    draw(tmp_path / "Images", "a.jpg")
    write(tmp_path / "captions.txt", "")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"captions\.txt can't be read: Permission denied"):
        data.load(f"flickr8k:{tmp_path}")


# ------------------------------------------------------------------------------------------------ flickr30k


@pytest.mark.parametrize("folder", ["flickr30k_images", "flickr30k-images", "flickr30k_images/flickr30k_images"])
def test_flickr30k_results_csv(tmp_path: Path, folder: str) -> None:
    """The header has blanks, and one line of the published file lacks its second bar."""
    draw(tmp_path / folder, *ABC)
    write(
        tmp_path / "results.csv",
        "image_name| comment_number| comment\na.jpg| 0| Two men , outside .\na.jpg| 1| A | b .\n"
        "b.jpg| 4   A dog runs across the grass .\nc.jpg| 0| Snow .\n",
    )
    dataset = data.load(f"flickr30k:{tmp_path}")
    assert captions(dataset) == {
        "a.jpg": ("Two men , outside .", "A | b ."),
        "b.jpg": ("A dog runs across the grass .",),
        "c.jpg": ("Snow .",),
    }
    assert dataset.notes[0] == "Line 4 of results.csv lacks its second bar; read as comment 4."
    assert "80/10/10" in dataset.notes[1]


def test_flickr30k_token_file_and_entities_splits(tmp_path: Path) -> None:
    draw(tmp_path / "flickr30k-images", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    write(tmp_path / "results_20130124.token", "".join(f"{n}.jpg#0\tCaption {n} .\n" for n in range(1, 5)))
    write(tmp_path / "train.txt", "1\n")
    write(tmp_path / "val.txt", "2\n")
    write(tmp_path / "test.txt", "3.jpg\n")
    dataset = data.load(f"flickr30k:{tmp_path}")
    assert splits(dataset) == {"1.jpg": "train", "2.jpg": "dev", "3.jpg": "test"}
    assert dataset.notes == ("Images left out because no split file names them: 1.",)


def test_flickr30k_layouts_that_are_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Looked for results\.csv, results_20130124\.token"):
        data.load(f"flickr30k:{tmp_path}")
    draw(tmp_path / "Images", "a.jpg")
    file = write(tmp_path / "results.csv", "a,b\n")
    with pytest.raises(DataError, match=r"begins with 'a,b', not with 'image_name\| comment_number\| comment'"):
        data.load(f"flickr30k:{tmp_path}")
    write(file, "image_name| comment_number| comment\nwhat is this\n")
    with pytest.raises(DataError, match=r"results\.csv, line 2 is not .*'what is this'"):
        data.load(f"flickr30k:{tmp_path}")


# ----------------------------------------------------------------------------------------------------- coco


def coco_file(path: Path, images: dict[int, str], notes: list[tuple[int, str]]) -> Path:
    content = {
        "info": {},
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "annotations": [{"id": 9, "image_id": number, "caption": caption} for number, caption in notes],
    }
    return write(path, json.dumps(content))


@pytest.mark.parametrize("year", ["2014", "2017"])
@pytest.mark.parametrize("images", [".", "images"])
def test_coco_of_any_year(tmp_path: Path, year: str, images: str) -> None:
    draw(tmp_path / images, f"train{year}/1.jpg", f"train{year}/2.jpg", f"val{year}/3.jpg")
    notes = [(2, "B"), (1, "A"), (1, "AA\n")]
    coco_file(tmp_path / f"annotations/captions_train{year}.json", {1: "1.jpg", 2: "2.jpg"}, notes)
    coco_file(tmp_path / f"annotations/captions_val{year}.json", {3: "3.jpg"}, [(3, "C")])
    write(tmp_path / f"annotations/instances_train{year}.json", "{}")
    dataset = data.load(f"coco:{tmp_path}")
    assert captions(dataset) == {"1": ("A", "AA"), "2": ("B",), "3": ("C",)}
    assert splits(dataset) == {"1": "train", "2": "train", "3": "dev"}
    assert "no test split" in dataset.notes[0]
    with pytest.raises(DataError, match=r"coco has no split 'test'\. It has: train, dev\."):
        dataset.split("test")


def test_coco_with_two_years_takes_the_newest_or_the_asked_one(tmp_path: Path) -> None:
    """Both years hold the same images: loading both would train on the other year's validation images."""
    for year in ("2014", "2017"):
        draw(tmp_path, f"train{year}/{year}.jpg", f"val{year}/9{year}.jpg")
        coco_file(
            tmp_path / f"annotations/captions_train{year}.json",
            {int(year): f"{year}.jpg"},
            [(int(year), "A")],
        )
        coco_file(tmp_path / f"annotations/captions_val{year}.json", {9: f"9{year}.jpg"}, [(9, "B")])
    newest = data.load(f"coco:{tmp_path}")
    assert list(captions(newest)) == ["2017", "9"]
    assert newest.notes[0] == f"The captions are those of 2017; for 2014 write coco:{tmp_path},YEAR."
    assert list(captions(data.load(f"coco:{tmp_path},2014"))) == ["2014", "9"]
    with pytest.raises(DataError, match=r"no COCO captions of 2015\. Looked for .*captions_train2015\.json"):
        data.load(f"coco:{tmp_path},2015")


def test_coco_single_file_is_split_by_image(tmp_path: Path) -> None:
    names = {number: f"{number}.jpg" for number in range(20)}
    draw(tmp_path / "pictures", *names.values())
    file = coco_file(tmp_path / "mine.json", names, [(number, "A") for number in names for _ in range(5)])
    dataset = data.load(f"coco:{file},{tmp_path}/pictures")
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [16, 2, 2]
    assert "only file of captions" in dataset.notes[0]
    with pytest.raises(DataError, match=r"no folder of images for mine\.json\. Looked for mine/, images/mine/"):
        data.load(f"coco:{file}")
    draw(tmp_path / "images", *names.values())
    assert len(data.load(f"coco:{file}").examples) == 20


def test_coco_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no COCO captions\. Looked for annotations/captions_train2017\.json"):
        data.load(f"coco:{tmp_path}")
    draw(tmp_path, "1.jpg")
    instances = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "bbox": []}]}
    file = write(tmp_path / "instances.json", json.dumps(instances))
    with pytest.raises(
        DataError, match=r"instances\.json is not a COCO captions file \('caption' is missing or unknown\)"
    ):
        data.load(f"coco:{file}")
    write(file, "[1]")
    with pytest.raises(DataError, match="is not a COCO captions file"):
        data.load(f"coco:{file}")
    write(file, "{'a'}")
    with pytest.raises(DataError, match=r"instances\.json is not JSON"):
        data.load(f"coco:{file}")


# ------------------------------------------------------------------------------------------------- karpathy


def karpathy_file(path: Path, kind: str, *images: dict[str, Any]) -> Path:
    return write(path, json.dumps({"dataset": kind, "images": images}))


def sentences(*raw: str) -> list[dict[str, str]]:
    return [{"raw": text} for text in raw]


@pytest.mark.parametrize("images", [".", "images"])
def test_karpathy_coco(tmp_path: Path, images: str) -> None:
    """restval joins train: without it, a third of the training images of every paper is lost."""
    file = karpathy_file(
        tmp_path / "dataset_coco.json",
        "coco",
        *(
            {
                "filename": f"{n}.jpg",
                "filepath": folder,
                "cocoid": n,
                "split": split,
                "sentences": sentences("A"),
            }
            for n, (folder, split) in enumerate(
                [("train2014", "train"), ("val2014", "restval"), ("val2014", "val"), ("val2014", "test")]
            )
        ),
    )
    draw(tmp_path / images, "train2014/0.jpg", "val2014/1.jpg", "val2014/2.jpg", "val2014/3.jpg")
    dataset = data.load(f"karpathy:{file},{tmp_path}")
    assert splits(dataset) == {"0": "train", "1": "train", "2": "dev", "3": "test"}
    assert dataset.name == "karpathy coco"
    assert dataset.notes == ("Images of restval, which count as train: 1.",)


def test_karpathy_flickr(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg", "b.jpg")
    file = karpathy_file(
        tmp_path / "dataset_flickr8k.json",
        "flickr8k",
        {"filename": "a.jpg", "split": "train", "sentences": [{"tokens": ["a", "dog"]}, {"raw": "A cat."}]},
        {"filename": "b.jpg", "split": "val", "sentences": sentences("B")},
    )
    dataset = data.load(f"karpathy:{file},{tmp_path}")
    assert captions(dataset) == {"a.jpg": ("a dog", "A cat."), "b.jpg": ("B",)}
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "dev"}


def test_karpathy_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"names no folder of images\. Write karpathy:FILE\.json,IMAGES"):
        data.load(f"karpathy:{tmp_path}/dataset_coco.json")
    file = karpathy_file(tmp_path / "x.json", "x", {"filename": "a.jpg", "split": "other", "sentences": []})
    with pytest.raises(DataError, match="nowhere is not a folder"):
        data.load(f"karpathy:{file},{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"not one of Karpathy's data sets \('other' is missing or unknown\)"):
        data.load(f"karpathy:{file},{tmp_path}")
    write(file, "[1]")
    with pytest.raises(DataError, match=r"x\.json is not one of Karpathy's data sets"):
        data.load(f"karpathy:{file},{tmp_path}")


# ---------------------------------------------------------------------------------------------------- table


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    writer.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows) + "\n")


WANTED = {"a.jpg": ("A dog, running", "Two"), "b.jpg": ("Three",)}
ROWS = [("a.jpg", "A dog, running"), ("a.jpg", "Two"), ("b.jpg", "Three")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'image,caption\na.jpg,"A dog, running"\na.jpg,Two\nb.jpg,Three\n'),
        ("t.csv", '\ufeffFile_Name;Text\r\na.jpg;"A dog, running"\r\na.jpg;Two\r\nb.jpg;Three\r\n'),
        ("t.tsv", "path\tdescription\na.jpg\tA dog, running\na.jpg\tTwo\nb.jpg\tThree\n"),
        ("t.csv", 'image,captions\na.jpg,"[""A dog, running"", ""Two""]"\nb.jpg,"[""Three""]"\n'),
        ("t.csv", "split|image | caption\ntrain|a.jpg| A dog, running\ntrain|a.jpg|Two\ntest|b.jpg|Three\n"),
    ],
)
def test_csv_tables(tmp_path: Path, name: str, text: str) -> None:
    draw(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_bytes(text.encode())
    assert captions(data.load(f"table:{tmp_path / name}")) == WANTED


@pytest.mark.parametrize("writer", [jsonl, parquet])
def test_jsonl_and_parquet_tables(tmp_path: Path, writer: Callable[[Path, list[dict[str, Any]]], Path]) -> None:
    draw(tmp_path, "a.jpg", "b.jpg")
    suffix = writer.__name__
    long = writer(tmp_path / f"long.{suffix}", [{"image": image, "text": text} for image, text in ROWS])
    assert captions(data.load(f"table:{long}")) == WANTED
    wide = writer(
        tmp_path / f"wide.{suffix}",
        [{"file_name": image, "captions": list(texts), "set": "val"} for image, texts in WANTED.items()],
    )
    dataset = data.load(f"table:{wide}")
    assert captions(dataset) == WANTED
    assert dataset.splits == ("dev",)


def test_table_with_named_columns_and_image_folder(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", "x/a.jpg", "b.jpg")
    file = write(tmp_path / "t.csv", "text,legend,photo_of,part\nno,A,x/a.jpg,Training\nno,B,b.jpg,validation\n")
    spec = f"table:{file},image=photo_of,caption=legend,split=part,images={tmp_path}/pictures"
    dataset = data.load(spec)
    assert captions(dataset) == {"x/a.jpg": ("A",), "b.jpg": ("B",)}
    assert splits(dataset) == {"x/a.jpg": "train", "b.jpg": "dev"}


def test_table_leaves_out_rows_without_image_or_caption(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / "t.csv", "image,caption\na.jpg,A\na.jpg,\n,B\na.jpg\n")
    dataset = data.load(f"table:{file}")
    assert captions(dataset) == {"a.jpg": ("A",)}
    assert dataset.notes[0] == "Rows left out because they lack an image or a caption: 3."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "foo,caption\na.jpg,A\n",
            r"t\.csv has no image column; its columns are foo, caption\. Looked for image,",
        ),
        ("t.csv", "image,foo\na.jpg,A\n", r"no caption column.*name it: table:.*t\.csv,caption=COLUMN"),
        ("t.csv", "image,caption\n", r"t\.csv has no rows"),
        (
            "t.csv",
            "image,caption\na.jpg,A, B\n",
            "line 2 has more cells than the header. Put captions that hold ','",
        ),
        ("t.csv", 'image,caption\na.jpg,"A\nb.jpg,B\n', r"t\.csv, line \d is not CSV"),
        ("t.csv", "image,caption,split\na.jpg,A,later\n", "row 1: 'later' is not a split. Splits are train"),
        (
            "t.csv",
            "image,caption,split\na.jpg,A,train\na.jpg,B,test\n",
            r"row 2: a\.jpg is in train and in test",
        ),
        (
            "t.csv",
            "image,caption\nhttps://x.org/a.jpg,A\n",
            r"row 1: https://x\.org/a\.jpg is an address. Download",
        ),
        ("t.json", '{"a.jpg": ["A"]}', r'holds one object, not a list of rows\. Write it as \[{"image": "a\.jpg"'),
        ("t.json", '{"data": [{"image": "a.jpg", "caption": "A"}]}', "holds one object, not a list of rows"),
        (
            "t.json",
            '{"image": "a.jpg"}\n{"image": "b.jpg"}',
            r"If it holds an object on each line, rename it to \.jsonl",
        ),
        ("t.jsonl", '{"image": 7, "caption": "A"}\n', "row 1: the image column holds int, not the path"),
        ("t.jsonl", '{"image": "a.jpg", "caption": "A"}\n{oops\n', r"t\.jsonl, line 2 is not JSON"),
        ("t.jsonl", "[1]\n", r"t\.jsonl, line 1 is not a JSON object"),
        ("t.parquet", "PAR0", r"t\.parquet is not Parquet"),
        (
            "t.xlsx",
            "PK",
            r"t\.xlsx is not a kind of table that showtell reads. It reads \.csv, \.tsv, \.json, \.jsonl and \.parquet",
        ),
    ],
)
def test_tables_that_are_not_understood(tmp_path: Path, name: str, text: str, message: str) -> None:
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        data.load(f"table:{file}")


def test_table_specs_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv is not a file"):
        data.load(f"table:{tmp_path}/gone.csv")
    with pytest.raises(
        UsageError, match=r"unknown setting 'column=x'\. Choose from: image=, caption=, split=, images="
    ):
        data.load("table:t.csv,column=x")
    file = write(tmp_path / "t.csv", "image,caption\na.jpg,A\n")
    with pytest.raises(DataError, match="has no split column"):
        data.load(f"table:{file},split=part")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    file = write(tmp_path / "t.parquet", "PAR1")
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[tables\]'"):
        data.load(f"table:{file}")


# --------------------------------------------------------------------------------------------------- folder


def test_folder(tmp_path: Path) -> None:
    draw(tmp_path, "one.jpg", "deep/two.tar.PNG", "bare.webp", ".hidden.jpg")
    write(tmp_path / "one.txt", "A dog\n\n  Two   dogs\n")
    write(tmp_path / "deep/two.tar.txt", "A cat")
    write(tmp_path / "alone.txt", "Nothing")
    dataset = data.load(f"folder:{tmp_path}")
    assert captions(dataset) == {"deep/two.tar.PNG": ("A cat",), "one.jpg": ("A dog", "Two dogs")}
    assert dataset.notes[:2] == (
        "Images left out because they have no text file: 1.",
        "Text files that have no image: 1, such as alone.txt.",
    )


def test_folder_with_split_folders(tmp_path: Path) -> None:
    for folder in ("train/x", "val", "test"):
        draw(tmp_path / folder, "a.jpg")
        write(tmp_path / folder / "a.txt", "A")
    assert splits(data.load(f"folder:{tmp_path}")) == {
        "test/a.jpg": "test",
        "train/x/a.jpg": "train",
        "val/a.jpg": "dev",
    }


def test_folder_without_texts(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"has no image with a text beside it\. Looked for .*; found a\.jpg"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="nowhere is not a folder"):
        data.load(f"folder:{tmp_path}/nowhere")


# ------------------------------------------------------------------------------------------------ all of them


def test_specs_that_are_wrong() -> None:
    with pytest.raises(UsageError, match=r"'photos/' does .* and there is no such file or folder\. Begin with one of"):
        data.load("photos/")
    with pytest.raises(UsageError, match=r"does not say what to load\. Write karpathy:FILE\.json,IMAGES"):
        data.load("karpathy:")


def test_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands the ~ in flickr8k:~/photos."""
    monkeypatch.setenv("HOME", str(tmp_path))
    draw(tmp_path / "photos", "a.jpg")
    write(tmp_path / "photos/a.txt", "A")
    assert len(data.load("folder:~/photos").examples) == 1


def test_split_names_of_other_tools(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{n}.jpg" for n in range(10)))
    file = write(tmp_path / "t.csv", "image,caption\n" + "".join(f"{n}.jpg,A\n" for n in range(10)))
    dataset = data.load(f"table:{file}")
    assert dataset.split("val") == dataset.split("validation") == dataset.split("dev")
    with pytest.raises(DataError, match=r"t\.csv has no split 'holdout'\. It has: train, dev, test\."):
        dataset.split("holdout")


def test_seeded_split_is_by_image_and_does_not_depend_on_order() -> None:
    names = [f"{n}.jpg" for n in range(100)]
    first = split_by_image(names)
    assert first == split_by_image(reversed(names)) == split_by_image(names * 5)
    assert first != split_by_image(names, seed=1)
    assert {split: list(first.values()).count(split) for split in ("train", "dev", "test")} == {
        "train": 80,
        "dev": 10,
        "test": 10,
    }
    assert sorted(split_by_image("abc").values()) == ["dev", "test", "train"]
    assert split_by_image("a") == {"a": "train"}


def test_flickr8k_on_disk() -> None:
    """The real files: 6,000 and 1,000 official images, five captions each."""
    folder = os.environ.get("SHOWTELL_TEST_DATA")
    if folder is None:
        pytest.skip("SHOWTELL_TEST_DATA is not set: no real photos here")
    dataset = data.load(f"flickr8k:{folder}/flickr8k")
    assert len(dataset.split("train")) == 6000
    assert len(dataset.split("dev")) == 1000
    assert {len(example.captions) for example in dataset.examples} == {5}
    assert dataset.missing == ()
    references = json.loads((Path(folder) / "eval/flickr8k_dev/references.json").read_text())
    assert {example.image_id for example in dataset.split("dev")} >= {image["id"] for image in references["images"]}
    assert not any(re.search(r"\s\s", caption) for example in dataset.examples for caption in example.captions)


# --------------------------------------------------------------------------------- as people have them: 24, 39, tables


def test_one_bad_text_is_one_sentence_and_the_others_are_read(tmp_path: Path) -> None:
    draw(tmp_path, *ABC)
    write(tmp_path / "a.TXT", "A")
    write(tmp_path / "b.Txt", "['B', 'C")  # a list? no: it does not end as one
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    dataset = data.load(f"folder:{tmp_path}")
    assert captions(dataset) == {"a.jpg": ("A",), "b.jpg": ("['B', 'C",)}
    way_out = "Convert it to UTF-8, or name its encoding, such as encoding=cp1252."
    assert dataset.notes[0] == f"{tmp_path}/c.txt is not UTF-8 text (byte 3). {way_out}"
    assert not any("no caption" in note for note in dataset.notes)
    assert captions(data.load(f"folder:{tmp_path},encoding=cp1252"))["c.jpg"] == ("café",)


def test_many_bad_texts_are_counted_and_nothing_else_is_an_error(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(8)]
    draw(tmp_path, *names)
    for name in names:
        (tmp_path / name).with_suffix(".txt").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"no text can be read\. .*0\.txt is not UTF-8 text"):
        data.load(f"folder:{tmp_path}")
    write(tmp_path / "0.txt", "A")
    notes = data.load(f"folder:{tmp_path}").notes
    assert sum("is not UTF-8" in note for note in notes) == 5
    assert "Further texts that can't be read: 2." in notes


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("t.csv", "a.jpg,Two cafés\nb.jpg,B\n", ",columns=image,caption,encoding=cp1252"),
        ("t.csv", "a.jpg;0;Two cafés\nb.jpg;1;B\n", ",columns=image,number,caption,encoding=latin-1"),
        ("t.csv", "Image Name,Caption Text,caption\na.jpg,no,Two cafés\nb.jpg,no,B\n", ",encoding=cp1252"),
        ("t.csv", "sep=;\r\nimage;caption\r\na.jpg;Two cafés\r\nb.jpg;B\r\n", ",encoding=cp1252"),
        ("t.csv", "image,caption,\na.jpg,Two cafés,,\nb.jpg,B,\n", ",encoding=cp1252"),
        ("t.csv", "imageName,caption\nim\\a.jpg,Two cafés\n./b.jpg,B\n", ",encoding=cp1252"),
        (
            "t.jsonl",
            '{"image": "a.jpg", "caption": "Two cafés"}\n{"image": "b.jpg", "caption": "B"}',
            ",encoding=cp1252",
        ),
    ],
)
def test_tables_as_people_have_them(tmp_path: Path, name: str, content: str, settings: str) -> None:
    draw(tmp_path, "im/a.jpg", "a.jpg", "b.jpg")
    (tmp_path / name).write_bytes(content.encode("cp1252"))
    found = captions(data.load(f"table:{tmp_path / name}{settings}"))
    assert sorted(found.values()) == [("B",), ("Two cafés",)]


def test_what_is_wrong_with_such_a_table_is_said(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / "t.csv", "a.jpg,A dog\nb.jpg,A cat\n")
    with pytest.raises(
        DataError, match=r"Its first row does not seem to be a header: table:.*t\.csv,columns=image,caption\."
    ):
        data.load(f"table:{file}")
    with pytest.raises(UsageError, match=r"There is no encoding 'dos'\. Use one that Python knows, such as cp1252"):
        data.load(f"table:{file},encoding=dos")
    file.write_bytes(b"image,caption\na.jpg,caf\xe9\n")
    with pytest.raises(DataError, match=r"t\.csv is not UTF-8 text \(byte 23\)\. .* such as encoding=cp1252\."):
        data.load(f"table:{file}")
    with pytest.raises(UsageError, match=r"t\.jsonl names its columns itself\. Leave out columns=\."):
        data.load(f"table:{write(tmp_path / 't.jsonl', '{}')},columns=image,caption")


def test_columns_of_one_name_all_count(tmp_path: Path) -> None:
    """The later ones took the place of the first."""
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / "t.csv", "image,caption,caption\na.jpg,One,Two\n")
    assert captions(data.load(f"table:{file}")) == {"a.jpg": ("One", "Two")}


def test_images_that_lie_elsewhere(tmp_path: Path) -> None:
    """The message names the setting, and it works: also for whole paths of another machine."""
    draw(tmp_path / "here", "a.jpg", "b.jpg")
    rows = "C:\\Users\\eva\\im\\a.jpg,A\n/home/eva/im/b.jpg,B\n"
    file = write(tmp_path / "t.csv", f"image,caption\n{rows}")
    with pytest.raises(DataError, match=r"all 2 image files are missing\. .* Name their folder: table:.*,images=DIR\."):
        data.load(f"table:{file}")
    assert sorted(captions(data.load(f"table:{file},images={tmp_path}/here")).values()) == [("A",), ("B",)]
    write(file, f"image,caption\n{rows}D:\\more\\a.jpg,C\n")  # which of the two is here?
    assert [e.captions for e in data.load(f"table:{file},images={tmp_path}/here").examples] == [("B",)]


def test_another_automatic_split(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    draw(tmp_path, *names)
    file = write(tmp_path / "t.csv", "image,caption,split\n" + "".join(f"{name},A,train\n" for name in names))
    dataset = data.load(f"table:{file},split=90/5/5")
    assert [len(dataset.split(name)) for name in ("train", "dev", "test")] == [36, 2, 2]
    assert dataset.notes == ("Images are split 90/5/5 as asked, the same way every time.",)
    for name in names:
        draw(tmp_path / "f/train", name)
        write((tmp_path / "f/train" / name).with_suffix(".txt"), "A")
    assert len(data.load(f"folder:{tmp_path}/f,split=50/25/25").split("test")) == 10
    assert split_by_image(names, shares="1/1/0") == split_by_image(names, shares="50/50/0")
    assert set(split_by_image(names, shares="100/0/0").values()) == {"train"}
    for shares in ("0/0/0", "x"):
        with pytest.raises(UsageError, match=r"is not a split\. Write the shares of train, dev and test, such as"):
            split_by_image(names, shares=shares)
    with pytest.raises(UsageError, match=r"'90' is not a split\. Write shares, such as split=90/5/5"):
        data.load(f"folder:{tmp_path},split=90")


@pytest.mark.parametrize("settings", ["", ",split=70/20/10"])
def test_a_path_without_a_format(tmp_path: Path, settings: str) -> None:
    """What is there says what it is; how it was read is told."""
    names = [f"{number}.jpg" for number in range(10)]
    draw(tmp_path / "images", *names)
    draw(tmp_path / "f", *names)
    for name in names:
        write((tmp_path / "f" / name).with_suffix(".txt"), "A")
    write(tmp_path / "k/captions.txt", "image,caption\n" + "".join(f"{name},A\n" for name in names))
    draw(tmp_path / "k/Images", *names)
    coco_file(tmp_path / "c.json", dict(enumerate(names)), [(number, "A") for number in range(10)])
    write(tmp_path / "images/t.csv", "image,caption\n" + "".join(f"{name},A\n" for name in names))
    for name, guessed in (("f", "folder"), ("k", "flickr8k"), ("c.json", "coco"), ("images/t.csv", "table")):
        spec = f"{tmp_path}/{name}{settings}"
        dataset = data.load(spec)
        assert dataset.notes[0] == f"{spec} is read as {guessed}:{spec}."
        assert [len(dataset.split(part)) for part in ("train", "dev", "test")] == ([7, 2, 1] if settings else [8, 1, 1])
    draw(tmp_path / "bare", "a.jpg")
    with pytest.raises(UsageError, match="does not begin with a data format"):
        data.load(f"{tmp_path}/bare")


def test_images_that_are_null_are_no_missing_files(tmp_path: Path) -> None:
    """One NaN refused the whole table, and `nan` was called a missing file."""
    draw(tmp_path, "a.jpg")
    file = write(tmp_path / "t.json", '[{"image": "a.jpg", "caption": "A"}, {"image": NaN, "caption": "B"}]')
    assert data.load(f"table:{file}").notes[0] == "Rows left out because they lack an image or a caption: 1."
    dataset = data.load(f"table:{write(tmp_path / 't.csv', 'image,caption' + chr(10) + 'a.jpg,A' + chr(10) + 'nan,B')}")
    assert (dataset.missing, dataset.notes[0]) == ((), "Rows left out because they lack an image or a caption: 1.")


def test_karpathy_sentences_as_other_tools_write_them(tmp_path: Path) -> None:
    """Tokens that are one text became letters; texts alone and a null filepath were refused."""
    draw(tmp_path, "a.jpg")
    for sentences in (["A dog"], [{"tokens": "A dog"}], [{"raw": None, "tokens": ["A", "dog"]}]):
        image = {"filename": "a.jpg", "filepath": None, "split": "train", "sentences": sentences}
        file = write(tmp_path / "k.json", json.dumps({"images": [image]}))
        assert captions(data.load(f"karpathy:{file},{tmp_path}")) == {"a.jpg": ("A dog",)}


def test_coco_says_why_no_image_has_a_caption(tmp_path: Path) -> None:
    draw(tmp_path, "a.jpg")
    content = {"images": [{"id": 1, "coco_url": "http://x/a.jpg"}], "annotations": [{"image_id": 1, "caption": "A"}]}
    file = write(tmp_path / "c.json", json.dumps(content))
    with pytest.raises(DataError, match=r"no image has a caption\. .* their image has no file name: 1\."):
        data.load(f"coco:{file}")


def test_flickr8k_captions_that_a_spreadsheet_wrote(tmp_path: Path) -> None:
    draw(tmp_path, "Images/a.jpg", "Images/b.jpg")
    file = write(tmp_path / "captions.txt", '\ufeff"image","caption"\r\n"a.jpg","A dog, red"\r\n"b.jpg","B"\r\n')
    assert captions(data.load(f"flickr8k:{tmp_path}")) == {"a.jpg": ("A dog, red",), "b.jpg": ("B",)}
    write(file, 'image,caption\na.jpg,"A dog\nis red"\n')  # half a caption, and an image called `is red"`
    with pytest.raises(DataError, match=r"line 3 is not 'image\.jpg,caption'.*Read it as a table: table:.*images=DIR"):
        data.load(f"flickr8k:{tmp_path}")
    assert captions(data.load(f"table:{file},images={tmp_path}/Images")) == {"a.jpg": ("A dog is red",)}
