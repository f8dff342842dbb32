"""`showtell evaluate`: the captions of a split, their scores, and the file that both go into."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from showtell.cli import main
from showtell.data import load
from showtell.data.features.writer import CacheWriter
from showtell.errors import MissingExtraError
from showtell.metrics import METRICS
from showtell.metrics.official.meteor import METEOR
from showtell.metrics.report import score
from showtell.search.options import SearchOptions
from tests.fake_model import picture, save_fake_model, use_fake_engine

COLOUR_OF = {"red.png": "red", "lime.png": "lime", "blue.png": "blue", "more.png": "red"}
SAID = {
    "red.png": "a red picture of nothing",
    "lime.png": "a green picture of nothing",
    "blue.png": "a blue picture of nothing",
    "more.png": "a red picture of nothing",
}
PEOPLE_SAY = {
    "red.png": ["a red picture of nothing", "something red"],
    "lime.png": ["a green picture of grass", "green"],
    "blue.png": ["the sky", "a blue picture"],
    "more.png": ["a red wall of bricks"],
}


@pytest.fixture
def place(tmp_path, monkeypatch, small_meteor):
    """A model `m`, and a table `t.jsonl` of four test images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOWTELL_CACHE", str(small_meteor))
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    rows = []
    for name, colour in COLOUR_OF.items():
        picture(colour).save(name)
        rows += [{"image": name, "caption": caption, "split": "test"} for caption in PEOPLE_SAY[name]]
    picture("red").save("train.png")
    rows.append({"image": "train.png", "caption": "a red one", "split": "train"})
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `showtell evaluate -m m --data table:t.jsonl ...`."""
    code = main(["evaluate", "-m", "m", "--data", "table:t.jsonl", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, out, error


def image_name(image_id: str) -> str:
    """The file's name, however the loader makes ids of it."""
    return f"{Path(image_id).stem}.png"


def test_scores_and_predictions(place, capsys):
    code, out, error = run(capsys, "-o", "results.json")
    assert (code, error) == (0, "")
    results = json.loads(Path("results.json").read_text())
    assert (results["model"], results["data"], results["split"]) == ("fake", "table:t.jsonl", "test")
    assert results["images"] == 4
    assert {image_name(p["image_id"]): p["caption"] for p in results["predictions"]} == SAID
    expected = score(SAID, PEOPLE_SAY)
    assert results["scores"] == pytest.approx(expected.scores)
    ciders = dict(zip(expected.image_ids, expected.per_image["CIDEr"], strict=True))
    for prediction in results["predictions"]:
        assert prediction["CIDEr"] == pytest.approx(ciders[image_name(prediction["image_id"])], abs=1e-4)
    assert out.splitlines()[0] == "fake on table:t.jsonl, test: 4 images"
    for metric, value in expected.scores.items():
        assert f"  {metric:<8} {100 * value:6.1f}\n" in out


def test_captions_that_break_off_or_are_copied_are_counted(place, capsys):
    """Cut after four words all break off; of the train split itself nothing is said to be copied."""
    rows = Path("t.jsonl").read_text().replace("a red one", "A red picture of nothing.")
    Path("t.jsonl").write_text(rows)
    _, out, _ = run(capsys, "-o", "r.json")
    shares = {line.split("  ")[0]: line.split() for line in out.splitlines() if "%" in line}
    assert shares["copied from training"][-4:] == ["50.0", "%", "25.0", "%"]
    assert shares['break off ("a man with a")'][-4:-2] == ["0.0", "%"]
    found = json.loads(Path("r.json").read_text())["captions"]
    assert (found["system"]["copied"], found["people"]["copied"], found["system"]["dangling"]) == (0.5, 0.25, 0)
    assert run(capsys, "-o", "r.json", "--max-words", 4)[0] == 0
    assert json.loads(Path("r.json").read_text())["captions"]["system"]["dangling"] == 1
    assert "copied" not in run(capsys, "--split", "train")[1]


def test_a_metric_that_can_not_be_had_is_told(place, capsys, monkeypatch):
    """A file of scores without METEOR would look as if nobody had asked for it."""

    def no_meteor(progress):
        raise MissingExtraError("METEOR", "meteor")

    monkeypatch.setitem(METRICS, "METEOR", replace(METEOR, prepare=no_meteor))
    code, out, _ = run(capsys, "-o", "results.json")
    assert code == 0
    assert "  METEOR   missing: METEOR needs packages that are not installed." in out
    assert json.loads(Path("results.json").read_text())["missing"].keys() == {"METEOR"}


def test_search_options_are_applied_and_recorded(place, capsys):
    assert run(capsys, "-o", "r.json", "--beam", 1, "--ban", "nothing", "--max-words", 4, "--batch-size", 3)[0] == 0
    results = json.loads(Path("r.json").read_text())
    expected = asdict(SearchOptions(beam=1, max_words=4, banned_words=("nothing",)))
    assert results["search"] == json.loads(json.dumps(expected))
    assert all("nothing" not in p["caption"] for p in results["predictions"])


def test_a_bad_image_is_reported_and_the_others_are_scored(place, capsys):
    Path("lime.png").write_bytes(b"no image")
    code, out, error = run(capsys, "-o", "r.json")
    assert code == 1
    assert "lime.png is not an image" in error
    assert error.count("\n") == 1
    assert "3 images" in out
    assert len(json.loads(Path("r.json").read_text())["predictions"]) == 3


def test_no_readable_image(place, capsys):
    for name in SAID:
        Path(name).write_bytes(b"no image")
    code, _, error = run(capsys)
    assert code == 1
    assert error.splitlines()[-1] == "showtell: No image of table:t.jsonl could be captioned."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], "has no split 'dev'. It has: train, test."),
        (["--features", "nowhere"], "There is no feature cache in nowhere."),
        (["-o", "x.csv"], "x.csv: evaluate writes JSON. Name a .json file."),
        (["-o", "nowhere/x.json"], "nowhere/x.json can't be written: No such file or directory."),
        (["--data", "tables:t"], "tables"),
    ],
)
def test_errors_are_one_line(place, capsys, arguments, message):
    code, _, error = run(capsys, *arguments)
    assert code in (1, 2)
    assert message in error
    assert error.startswith("showtell: ")
    assert error.count("\n") == 1


def test_a_place_that_can_not_be_written_is_found_first(place, capsys, monkeypatch):
    """Not after an hour of captioning."""
    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", lambda *_: pytest.fail("captioning has begun"))
    assert run(capsys, "-o", "nowhere/x.json")[0] == 2


def test_ctrl_c(place, capsys, monkeypatch):
    def interrupt(self, images):
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", interrupt)
    code, _, error = run(capsys, "-o", "r.json")
    assert (code, error) == (130, "showtell: Stopped by Ctrl-C after 0 of 4 images. Nothing was written.\n")
    assert not Path("r.json").exists()


def build_cache(ids: list[str], cells: int = 4, unreadable: str = "") -> None:
    """A feature cache `cache` whose features name the colours, as the fake engine reads them."""
    stamps = {example.image_id: example.stamp for example in load("table:t.jsonl").split("test")}
    with CacheWriter("cache", "the encoder", cells, 3, stamps) as writer:
        for image_id in ids:
            colour = ("red", "lime", "blue").index(COLOUR_OF[image_name(image_id)])
            if image_id == unreadable:
                writer.leave_out(image_id, f"{image_id} is cut off.")
            else:
                writer.write([image_id], np.tile(np.eye(3)[colour], (1, cells, 1)))


@pytest.fixture
def ids(place, capsys):
    """The image ids of the test split, as the loader makes them."""
    run(capsys, "-o", "ids.json")
    return [prediction["image_id"] for prediction in json.loads(Path("ids.json").read_text())["predictions"]]


def test_features_stand_for_the_images(place, capsys, ids, monkeypatch):
    """The encoder is not run, and the result is the same file."""
    build_cache(ids)
    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", lambda *_: pytest.fail("the encoder is run"))
    assert run(capsys, "--features", "cache", "-o", "r.json", "--batch-size", 3)[0] == 0
    assert Path("r.json").read_text() == Path("ids.json").read_text()


def test_an_image_that_the_cache_could_not_read(place, capsys, ids):
    build_cache(ids, unreadable=ids[1])
    code, out, error = run(capsys, "--features", "cache")
    assert (code, error) == (1, f"showtell: {ids[1]} is cut off.\n")
    assert "3 images" in out


def test_features_of_photos_that_have_changed_are_refused(place, capsys, ids):
    """The captions were those of the photos before."""
    build_cache(ids)
    picture("blue").save("red.png")
    code, _, error = run(capsys, "--features", "cache")
    assert code == 1
    assert "is not the image that the feature cache cache was built from. Delete that folder or" in error


def test_features_of_another_encoder_are_refused(place, capsys, ids):
    build_cache(ids)
    save_fake_model(place / "m", training={"feature_fingerprint": "another encoder"})
    code, _, error = run(capsys, "--features", "cache")
    assert code == 1
    assert error.startswith("showtell: The feature cache cache")
    save_fake_model(place / "m", training={"feature_fingerprint": "the encoder"})
    assert run(capsys, "--features", "cache")[0] == 0


def test_features_of_another_grid_are_refused(place, capsys, ids):
    build_cache(ids, cells=9)
    code, _, error = run(capsys, "--features", "cache")
    assert code == 1
    assert "The feature cache cache holds 9 cells an image, not those of fake. Leave out --features" in error


def test_help_mentions_all_options(capsys):
    assert main(["evaluate", "-h"]) == 0
    text = capsys.readouterr().out
    own = "--data --model --split --output --features --batch-size -d -m -o -h"
    search = "--beam --groups --diversity --length-penalty --min-words --max-words --no-repeat-ngram --ban --require"
    for option in f"{own} {search} --sample --temperature --top-k --top-p --seed".split():
        assert f" {option} " in text, option
