"""What a worker does with a part, without a cluster: captions, what is set aside, and what a death leaves."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from showtell.bulk.captioning import PartCaptioner, number_of
from showtell.bulk.parts import Part, find_parts
from showtell.bulk.results import Results
from showtell.captioner import Captioner
from showtell.errors import UsageError
from showtell.images.sources import Finder
from tests.fake_model import FakeEngine, fake_config, fake_tokenizer, picture

parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec")

SAID = {colour: f"a {colour} picture of nothing" for colour in ("red", "green", "blue")}
MADE_WITH = {"model": "fake", "beam": 1}


class Death(BaseException):
    """Ends a worker: nothing that it does may catch this."""


class Mortal(FakeEngine):
    """Dies at a blue image, and fails at a green one."""

    def encode(self, images):
        memory = super().encode(images)
        if 2 in memory["colour"]:
            raise Death
        if 1 in memory["colour"]:
            raise RuntimeError("no green\nplease")
        return memory


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, colour in enumerate(["red", "lime", "red", "blue", "red"]):
        picture(colour).save(f"photos/{number}.png")
    Path("photos/5.png").write_bytes(b"nonsense")
    return tmp_path


def worker(engine: type[FakeEngine] = FakeEngine, out: str = "out", **options) -> PartCaptioner:
    captioner = Captioner(engine(fake_tokenizer()), fake_tokenizer(), fake_config())
    results = Results(out)
    results.make_folders()
    return PartCaptioner(captioner, captioner.options(**options), results, MADE_WITH, 2)


def part() -> Part:
    (found,) = find_parts(["photos"], None, 100, Finder())
    return found


def rows(out: str = "out") -> list[dict]:
    return parquet.read_table(out).to_pylist()  # the whole folder: _showtell is passed over


def test_a_file_with_a_row_for_each_image(place):
    assert worker()(12, part()) == (5, 1)
    assert [(row["image"], row["caption"]) for row in rows()] == [
        ("photos/0.png", SAID["red"]),
        ("photos/1.png", SAID["green"]),
        ("photos/2.png", SAID["red"]),
        ("photos/3.png", SAID["blue"]),
        ("photos/4.png", SAID["red"]),
        ("photos/5.png", None),
    ]
    assert [row["error"] for row in rows()][:5] == [None] * 5
    assert rows()[5]["error"].startswith("photos/5.png")
    assert rows()[0]["log_prob"] == round(worker().captioner("photos/0.png")[0].log_prob, 4)
    schema = parquet.read_schema("out/part-000012.parquet")
    assert json.loads(schema.metadata[b"showtell"]) == MADE_WITH
    assert sorted(path.name for path in Path("out").rglob("*") if path.is_file()) == ["part-000012.parquet"]


def test_the_columns_are_those_of_one_process(place):
    """And one more; so that both can be read as one table."""
    from showtell.results.outputs import write_parquet

    worker()(0, part())
    write_parquet(Path("one.parquet"), [], {})
    ours, theirs = parquet.read_schema("out/part-000000.parquet"), parquet.read_schema("one.parquet")
    assert ours.names == [*theirs.names, "error"]
    assert [ours.field(name).type for name in theirs.names] == theirs.types


def test_several_captions_are_several_rows(place):
    worker(num=2)(0, part())
    names = [row["image"] for row in rows()]
    assert [names.count(f"photos/{number}.png") for number in range(6)] == [2, 2, 2, 2, 2, 1]


def test_samples_of_an_image_do_not_depend_on_its_part(place):
    """Seeds go by the name: cut otherwise, the same captions."""
    options = {"sample": True, "temperature": 3.0, "seed": 1}
    worker(out="whole", **options)(0, part())
    for number, piece in enumerate(find_parts(["photos"], None, 1, Finder())):
        worker(out="cut", **options)(number, piece)
    assert [row["caption"] for row in rows("whole")] == [row["caption"] for row in rows("cut")]
    assert len({row["caption"] for row in rows("whole")}) > 3
    assert number_of("a.png") == 199044584806717, "an update changes everybody's samples"


def test_an_image_at_which_the_model_fails_is_set_aside_alone(place):
    """Its batch is captioned image by image."""
    Path("photos/3.png").unlink()
    assert worker(Mortal)(0, part()) == (3, 2)
    errors = {row["image"]: row["error"] for row in rows() if row["error"]}
    assert errors["photos/1.png"] == "photos/1.png can't be captioned: RuntimeError: no green please."
    assert {row["image"] for row in rows() if row["caption"] == SAID["red"]} == {f"photos/{n}.png" for n in (0, 2, 4)}


def test_a_defect_of_a_decoder_is_set_aside(place, monkeypatch):
    def broken(self, image):
        raise ZeroDivisionError("in a decoder")

    monkeypatch.setattr(Captioner, "picture", broken)
    assert worker()(0, part()) == (0, 6)
    assert rows()[0]["error"] == "photos/0.png can't be read: ZeroDivisionError: in a decoder."


def test_an_image_that_ends_workers_is_set_aside(place):
    """The part would be given to one worker after the other for ever, and all its images were lost."""
    for _ in range(4):
        with pytest.raises(Death):
            worker(Mortal)(0, part())
        assert not list(Path("out").glob("part-*")), "a part that is not done has no file"
    assert worker(Mortal)(0, part()) == (3, 3)
    errors = {row["image"]: row["error"] for row in rows() if row["error"]}
    assert errors["photos/3.png"] == "photos/3.png crashed the worker that captioned it, 2 times."
    assert len(rows()) == 6
    assert not list(Path("out/_showtell/attempts").iterdir())


def test_a_worker_that_was_taken_away_costs_no_image(place):
    """Machines go; an image is not to blame because its worker went, once, while it was captioned."""
    for _ in range(3):
        with pytest.raises(Death):
            worker(Mortal)(0, part())
    assert worker()(0, part()) == (5, 1)


def test_a_half_written_note_is_no_note(place):
    results = worker().results
    Path("out/_showtell/attempts/000000.json").write_text('{"tries": 7, "dea')
    assert results.attempt(0).tries == 1


def test_a_part_that_is_done_again_is_the_same(place):
    """A worker may die between the file's renaming and saying so, or be thought dead and go on beside another."""
    worker()(0, part())
    before = Path("out/part-000000.parquet").read_bytes()
    worker()(0, part())
    assert Path("out/part-000000.parquet").read_bytes() == before


def test_results_go_to_a_url(place):
    """`memory://` stands for a store: nothing of a disk's may be needed."""
    results = Results("memory://bucket/captions")
    assert results.manifest() is None
    results.make_folders()
    results.begin([part(), part()], MADE_WITH)
    captioner = worker().captioner
    caption = PartCaptioner(captioner, captioner.options(), results, MADE_WITH, 2)
    assert results.done() == set()
    places = results.lines()
    assert caption(1, results.part(*places[1])) == (5, 1)
    assert results.done() == {1}
    assert Results("memory://bucket/captions").manifest() == MADE_WITH
    data = results.file_system.cat_file("/bucket/captions/part-000001.parquet")
    assert parquet.read_table(io.BytesIO(data)).num_rows == 6
    results.tidy()
    assert not [name for name in results.file_system.find("/bucket") if "attempts" in name or "unfinished" in name]


def test_a_folder_of_something_else_is_refused(place):
    with pytest.raises(UsageError, match="photos holds files that are not captions"):
        Results("photos").manifest()


def test_a_folder_that_cannot_be_written_is_refused(place):
    with pytest.raises(UsageError, match=r"photos/0\.png/out can't be written: Not a directory"):
        Results("photos/0.png/out").make_folders()


def test_other_options_are_refused(place):
    results = worker().results
    results.begin([part()], MADE_WITH)
    results.check(MADE_WITH)
    with pytest.raises(UsageError, match=r"out was begun with beam 1, not 5\. Use the same options as before"):
        results.check({**MADE_WITH, "beam": 5})


def test_large_photos_are_read_as_one_process_reads_them(place):
    """By the shorter side that the model needs."""
    Image.new("RGB", (4000, 3000), "red").save("photos/4.jpg")
    worker()(0, Part("files", ("photos/4.jpg",)))
    assert rows()[0]["caption"] == SAID["red"]
