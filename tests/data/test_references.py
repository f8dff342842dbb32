"""References and predictions in every form that is passed around; no image file is needed for any of it."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest

from showtell import data
from showtell.data import References, matched, read_predictions, read_references
from showtell.data.references import Predictions
from showtell.errors import DataError, UsageError

COCO = {
    "images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}, {"id": 7}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "A cat\n sits."},
        {"id": 2, "image_id": 42, "caption": "A dog."},
        {"id": 3, "image_id": 7, "caption": "Cat"},
    ],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"cocoid": 42, "filename": "a.jpg", "split": "test", "sentences": [{"raw": "A dog."}, {"raw": "Dog"}]},
        {"filename": "b.jpg", "split": "restval", "sentences": [{"tokens": ["a", "cat"]}]},
    ],
}


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def plain(references: References) -> dict[str, list[str]]:
    return {image_id: list(captions) for image_id, captions in references.captions.items()}


# ----------------------------------------------------------------------------------------------- references


def test_coco_annotations_as_they_are_written(tmp_path: Path) -> None:
    """In the order of the images, as the official code has it; an image without captions is not lost."""
    file = put(tmp_path / "captions.json", COCO | {"images": [*COCO["images"], {"id": 9}]})
    assert plain(read_references(file)) == {"42": ["A dog."], "7": ["A cat\n sits.", "Cat"], "9": []}


def test_karpathy_with_its_splits(tmp_path: Path) -> None:
    file = put(tmp_path / "dataset_coco.json", KARPATHY)
    assert plain(read_references(file)) == {"42": ["A dog.", "Dog"], "b.jpg": ["a cat"]}
    assert plain(read_references(file, "test")) == {"42": ["A dog.", "Dog"]}
    assert plain(read_references(f"karpathy:{file}", "train")) == {"b.jpg": ["a cat"]}
    assert read_references(file).paths["42"].name == "a.jpg"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.json", {"1": ["A dog.", "Dog"], "2": ["A cat"]}),
        (
            "rows.json",
            [
                {"image_id": 1, "caption": "A dog."},
                {"image_id": 2, "caption": "A cat"},
                {"image_id": 1, "caption": "Dog"},
            ],
        ),
        ("t.jsonl", '{"image_id": 1, "captions": ["A dog.", "Dog"]}\n{"image_id": 2, "captions": ["A cat"]}\n'),
        ("t.csv", "image,caption\n1,A dog.\n1,Dog\n2,A cat\n"),
        ("t.tsv", "file_name\ttext\n1\tA dog.\n1\tDog\n2\tA cat\n"),
    ],
)
def test_tables_and_maps(tmp_path: Path, name: str, content: object) -> None:
    assert plain(read_references(put(tmp_path / name, content))) == {"1": ["A dog.", "Dog"], "2": ["A cat"]}


def test_table_with_named_columns_and_splits(tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", "shot,said,part\nx.png,a dog,val\ny.png,a cat,train\n")
    where = f"table:{file},image=shot,caption=said,split=part"
    assert plain(read_references(where)) == {"x.png": ["a dog"], "y.png": ["a cat"]}
    assert plain(read_references(where, "dev")) == {"x.png": ["a dog"]}
    with pytest.raises(DataError, match="no split 'test'"):
        read_references(where, "test")


def test_layouts_without_their_photos(tmp_path: Path) -> None:
    """Scoring on a machine that has the captions only."""
    put(tmp_path / "8k" / "captions.txt", "image,caption\na.jpg,A dog .\nb.jpg,A cat .\n")
    put(tmp_path / "8k" / "Flickr_8k.testImages.txt", "b.jpg\n")
    assert plain(read_references(f"flickr8k:{tmp_path}/8k", "test")) == {"b.jpg": ["A cat ."]}
    put(tmp_path / "30k" / "results.csv", "image_name| comment_number| comment\n1.jpg| 0| A dog .\n")
    assert plain(read_references(f"flickr30k:{tmp_path}/30k")) == {"1.jpg": ["A dog ."]}
    put(
        tmp_path / "coco" / "annotations" / "captions_val2017.json",
        {**COCO, "images": [{"id": 42, "file_name": "42.jpg"}]},
    )
    assert plain(read_references(f"coco:{tmp_path}/coco")) == {"42": ["A dog."]}
    assert read_references("shapes:3").captions.keys() == {f"shapes-00000{n}" for n in range(3)}
    with pytest.raises(DataError, match="folder of images"):
        data.load(f"flickr8k:{tmp_path}/8k")


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"annotations": [{}]}, 3, "[1"])
def test_files_that_hold_something_else(tmp_path: Path, content: object) -> None:
    file = put(tmp_path / "x.json", content)
    with pytest.raises(DataError, match=r"x\.json"):
        read_references(file)


@pytest.mark.parametrize(
    "given", ["t.csv", "table:{}/t.csv", "table:{}/t.csv,split=50/25/25", "c.json", "coco:{}/c.json"]
)
def test_the_automatic_split_is_that_of_the_data_set(tmp_path: Path, given: str) -> None:
    """`compare` takes the split that `evaluate` has captioned."""
    names = [f"{number}.jpg" for number in range(20)]
    put(tmp_path / "t.csv", "image,caption\n" + "".join(f"{name},a dog\n" for name in names))
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"image_id": number, "caption": "a dog"} for number in range(20)]
    put(tmp_path / "c.json", {"images": images, "annotations": notes})
    spec = given.format(tmp_path) if ":" in given else f"{'coco' if 'c.json' in given else 'table'}:{tmp_path}/{given}"
    wanted = [example.image_id for example in data.load(spec, photos=False).split("test")]
    found = read_references(spec if ":" in given else tmp_path / given, "test")
    assert list(found.captions) == wanted
    assert len(wanted) == (5 if "split=" in given else 2)
    assert any("the same way every time" in note for note in found.notes)


def test_a_folder_that_says_what_it_is(tmp_path: Path) -> None:
    put(tmp_path / "captions.txt", "image,caption\na.jpg,A dog .\n")
    found = read_references(tmp_path)
    assert plain(found) == {"a.jpg": ["A dog ."]}
    assert found.notes[0] == f"{tmp_path} is read as flickr8k:{tmp_path}."


def test_ids_in_another_spelling_match(tmp_path: Path) -> None:
    """A Mac writes é as two letters."""
    assert match([normalize("NFD", "im/café.jpg")], References({"café": ["x"]})) == ["café"]


def test_no_such_file_folder_or_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json is not a file\. Data sets are named flickr8k:"):
        read_references(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"is a folder\. Name a file, or say what it holds: flickr8k:"):
        read_references(tmp_path)
    with pytest.raises(UsageError, match="has no splits"):
        read_references(put(tmp_path / "map.json", {"1": ["a dog"]}), "test")
    with pytest.raises(DataError, match=r"has no split 'test'\. It has: train\."):
        read_references(put(tmp_path / "t.csv", "image,caption\n1,a dog\n"), "test")


# ---------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("coco.json", [{"image_id": 1, "caption": "A dog."}, {"image_id": "x.jpg", "caption": ""}]),
        (
            "evaluate.json",
            {
                "model": "m",
                "predictions": [{"image_id": 1, "caption": "A dog.", "CIDEr": 1}, {"image_id": "x.jpg", "caption": ""}],
            },
        ),
        (
            "r.json",
            {"info": 1, "results": [{"image_id": 1, "caption": "A dog."}, {"image_id": "x.jpg", "caption": ""}]},
        ),
        ("texts.json", {"1": {"text": "A dog."}, "x.jpg": [{"raw": ""}]}),
        ("map.json", {"1": "A dog.", "x.jpg": ""}),
        ("lists.json", {"1": ["A dog."], "x.jpg": [""]}),
        ("caption.jsonl", '{"image": "1", "caption": "A dog.", "log_prob": -1.5}\n{"image": "x.jpg", "caption": ""}\n'),
        ("caption.csv", "image,caption,log_prob\n1,A dog.,-1.5\nx.jpg,,-2\n"),
        ("caption.txt", "1\tA dog.\nx.jpg\t\n"),
        ("floats.jsonl", '{"image_id": 1.0, "caption": "A dog."}\n{"image_id": "x.jpg", "caption": ""}\n'),
    ],
)
def test_predictions(tmp_path: Path, name: str, content: object) -> None:
    """An empty caption is one, and scores 0: it is not left out."""
    found = read_predictions(put(tmp_path / name, content))
    assert list(found.captions.items()) == [("1", "A dog."), ("x.jpg", "")]
    assert (found.spare, found.decoding) == (0, None)


def test_predictions_in_named_columns(tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", "photo,generated,caption\n1,a dog,truth\n")
    assert read_predictions(f"table:{file},caption=generated").captions == {"1": "a dog"}
    rows = put(tmp_path / "t.json", [{"key": 1, "out": "a dog"}])
    assert read_predictions(f"table:{rows},image=key,caption=out").captions == {"1": "a dog"}
    with pytest.raises(DataError, match=r"no image column; its columns are key, out"):
        read_predictions(rows)


def test_the_first_of_several_captions_counts(tmp_path: Path) -> None:
    file = put(tmp_path / "t.csv", "image,caption\na,best\na,second\nb,only\na,third\n")
    found = read_predictions(file)
    assert found.captions == {"a": "best", "b": "only"}
    assert found.spare == 2


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (
            {
                "beam": 3,
                "sample": False,
                "num": 1,
                "temperature": 1.0,
                "top_k": None,
                "seed": 0,
                "max_words": 20,
                "min_words": 0,
            },
            "beam=3,max_words=20",
        ),
        (
            {"beam": 3, "sample": True, "temperature": 0.7, "top_p": 0.9, "seed": 5},
            "sample,temperature=0.7,top_p=0.9,seed=5",
        ),
        ({"beam": 1, "banned_words": ["red", "blue"]}, "beam=1,banned_words=red+blue"),
        (None, None),
    ],
)
def test_decoding_that_the_file_tells(tmp_path: Path, search: object, told: str | None) -> None:
    rows = [{"image_id": 1, "caption": "a"}]
    assert read_predictions(put(tmp_path / "p.json", {"search": search, "predictions": rows})).decoding == told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.json", [{"image_id": 1}], "no caption column"),
        ("p.json", [{"image_id": None, "caption": "a"}], "row 1 has no image id"),
        ("p.json", [{"image_id": True, "caption": "a"}], "row 1 has no image id"),
        ("p.json", [1, 2], "does not hold a list of objects"),
        ("p.json", 5, "does not hold a list of objects"),
        ("p.json", {"predictions": 5}, "does not hold a list of objects"),
        ("p.json", [], "has no rows"),
        ("p.json", "{", "is not JSON"),
        ("p.txt", "a dog\n", "line 1 is not 'image<tab>caption'"),
        ("p.docx", "", "is not a kind of table that showtell reads"),
    ],
)
def test_files_that_hold_no_predictions(tmp_path: Path, name: str, content: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_predictions(put(tmp_path / name, content))


def test_predictions_that_are_no_file(tmp_path: Path) -> None:
    """The way out was that of references: predictions are no data set."""
    for name, what in ((tmp_path, "a folder"), (tmp_path / "gone.json", "not a file"), ("-", "not a file")):
        with pytest.raises(DataError, match=f"is {what}\\. Name a file of captions: COCO results"):
            read_predictions(name)


# ------------------------------------------------------------------------------------------------- matching


def match(ids: list[str], references: References) -> list[str]:
    return list(matched(Predictions(dict.fromkeys(ids, "a dog")), references).captions)


def test_ids_match_as_text_or_by_file_name() -> None:
    references = References(
        {"42": ["x"], "b.jpg": ["x"], "folder/c.png": ["x"], "1.5": ["x"]},
        {"42": Path("val2014/COCO_val2014_000000000042.jpg")},
    )
    for name in ("42", "photos/COCO_val2014_000000000042.jpg", "000000000042.jpg", "C:\\photos\\42.png"):
        assert match([name], references) == ["42"], name
    assert match(["photos/b.jpg"], references) == match(["b"], references) == ["b.jpg"]
    assert match(["/home/c.png"], references) == ["folder/c.png"]
    assert match(["42.0"], references) == ["42"]  # a column of numbers that lacks one, as pandas writes it
    assert match(["42"], References({"42.0": ["x"]})) == ["42.0"]
    assert match(["1", "1.5", "d.jpg", "043"], references) == ["1", "1.5", "d.jpg", "043"]


def test_a_name_of_two_images_matches_neither() -> None:
    """Scored against the wrong image would be worse than not at all."""
    references = References({"a/1.jpg": ["x"], "b/1.jpg": ["x"], "2": ["x"], "2.jpg": ["x"]})
    assert match(["1.jpg", "c/1.jpg", "b/1.jpg", "2", "2.jpg"], references) == [
        "1.jpg",
        "c/1.jpg",
        "b/1.jpg",
        "2",
        "2.jpg",
    ]


def test_two_predictions_of_one_image() -> None:
    found = matched(Predictions({"a/1.jpg": "best", "b/1.jpg": "other"}), References({"1": ["x"]}))
    assert found.captions == {"1": "best"}
    assert found.spare == 1
