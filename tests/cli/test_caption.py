"""`showtell caption`: what goes in, what comes out, and going on after an interruption."""

import csv
import functools
import gzip
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from showtell import bundle as bundle_module
from showtell.cli import main
from showtell.cli.commands import caption as caption_module
from showtell.confidence import Confidence, in_words
from showtell.data import load as load_data
from showtell.data import read_predictions
from showtell.errors import UsageError
from showtell.images import storage, urls
from showtell.images.names import printable
from showtell.images.sources import Finder
from showtell.results.journal import done_images
from showtell.results.outputs import coco_image_id, coco_text, header_of, row_text
from tests.fake_model import FakeEngine, picture, png, save_fake_model, use_fake_engine

REPOSITORY = Path(__file__).parents[2]
SAID = {
    "red": "a red picture of nothing",
    "lime": "a green picture of nothing",
    "blue": "a blue picture of nothing",
}

WRITTEN = (("a.png", "red"), ("b.jpg", "lime"), ("trip/c.webp", "blue"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in: a model `m`, and `photos` with three images, one of them in a folder below."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    picture("red").save("photos/a.png")
    picture("lime").save("photos/b.jpg", quality=95)
    picture("blue").save("photos/trip/c.webp", lossless=True)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `showtell caption -m m ...`."""
    code = main(["caption", "-m", "m", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, out, error


def test_a_folder_as_text(place, capsys):
    assert run(capsys, "photos") == (
        0,
        f"photos/a.png\t{SAID['red']}\nphotos/b.jpg\t{SAID['lime']}\nphotos/trip/c.webp\t{SAID['blue']}\n",
        "",
    )


def test_a_hyphen_is_stdout(place, capsys):
    code, written, _ = run(capsys, "photos", "-o", "-", "--format", "jsonl")
    assert code == 0
    assert len(written.splitlines()) == len(WRITTEN)
    assert not (place / "-").exists()


def test_each_image_once_in_the_order_of_the_inputs(place, capsys):
    _, out, _ = run(capsys, "photos/trip/c.webp", "photos", "photos/a.png")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "photos/trip/c.webp",
        "photos/a.png",
        "photos/b.jpg",
    ]


def test_hidden_and_other_files_of_a_folder_are_left_out(place, capsys):
    """macOS leaves ._a.jpg beside a.jpg on other disks; photo programs keep thumbnails in hidden folders."""
    picture("red").save("photos/.hidden.png")
    Path("photos/._b.jpg").write_bytes(b"\0\5\x16\7")
    Path("photos/.thumbs").mkdir()
    picture("red").save("photos/.thumbs/x.png")
    code, out, _ = run(capsys, "photos")
    assert (code, len(out.splitlines())) == (0, 3)


def test_a_file_that_is_named_may_have_any_suffix(place, capsys):
    Path("photos/a.png").rename("photos/upload")
    assert run(capsys, "photos/upload")[1] == f"photos/upload\t{SAID['red']}\n"


@pytest.mark.parametrize("pattern", ["photos/**/*", "photos/*/*.webp", "photos/**/?.webp"])
def test_globs_that_the_shell_did_not_expand(place, capsys, pattern):
    code, out, _ = run(capsys, pattern)
    assert code == 0
    assert f"photos/trip/c.webp\t{SAID['blue']}\n" in out
    assert "notes" not in out


def test_a_file_named_like_a_glob(place, capsys):
    picture("red").save("photos/x[1].png")
    assert run(capsys, "photos/x[1].png")[1] == f"photos/x[1].png\t{SAID['red']}\n"


def test_stdin_is_an_image(place, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(png("blue"))))
    assert run(capsys, "-") == (0, f"-\t{SAID['blue']}\n", "")


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "Stdin is empty. For '-', send one image"), (b"text", "stdin is not an")]
)
def test_stdin_that_is_no_image(place, capsys, monkeypatch, data, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, out, error = run(capsys, "-")
    assert (code, out) == (1, "")
    assert message in error


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_as_windows_writes_it(place, capsys, codec):
    """Notepad marks the begin of UTF-8, PowerShell's > writes UTF-16: the mark is no part of the first name."""
    Path("photos/a.png").rename("photos/é.png")
    Path("list.txt").write_bytes("photos/é.png\r\nphotos/b.jpg\r\n".encode(codec))
    code, out, error = run(capsys, "--list", "list.txt")
    assert (code, error) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["photos/é.png", "photos/b.jpg"]


def test_a_list_that_only_begins_like_utf_16(place, capsys):
    Path("list.txt").write_bytes(b"\xff\xfea")
    assert run(capsys, "--list", "list.txt")[0] == 1


def test_list_names_inputs(place, capsys, monkeypatch):
    names = "photos/a.png\n\nphotos/trip\r\n"
    Path("list.txt").write_text(names)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
    expected = f"photos/a.png\t{SAID['red']}\nphotos/trip/c.webp\t{SAID['blue']}\n"
    assert run(capsys, "--list", "list.txt") == (0, expected, "")
    assert run(capsys, "--list", "-") == (0, expected, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "nowhere.txt"], "The list nowhere.txt can't be read: No such file or directory."),
        ([], "There is no INPUT. Name photos or a folder: showtell caption photos/"),
        (
            ["photos", "--resume"],
            "--resume continues a file. Name it with -o FILE.",
        ),
        (["photos", "-f", "coco", "-n", "2"], "The coco format holds one caption for each image."),
        (
            ["photos", "-o", "nowhere/x.csv"],
            "nowhere/x.csv can't be written: No such file or directory.",
        ),
        (
            ["photos", "-o", "nowhere/x.json"],
            "nowhere/x.json can't be written: No such file or directory.",
        ),
        (["photos", "-o", "photos", "-f", "csv"], "photos can't be written: Is a directory."),
        (["photos", "-o", "photos", "-f", "coco"], "photos can't be written: it is a folder."),
        (["photos", "--beam", "0"], "beam is 0"),
        (["photos", "--top-k", "3"], "top_k is set, but only sampling uses it."),
        (["photos", "--prefix", "a zebra"], "prefix has the word 'zebra', which this model never says."),
        (["photos", "-m", "nowhere"], "There is no model folder nowhere."),
    ],
)
def test_what_is_wrong_is_said_on_one_line(place, capsys, arguments, message):
    code, _, error = run(capsys, *arguments)
    assert code in (1, 2)
    assert error.startswith(f"showtell: {message}")
    assert error.count("\n") == 1


def test_no_model(place, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "SHIPPED", tmp_path / "none")
    assert main(["caption", "photos"]) == 1
    assert "This copy of showtell comes without a model. Train one" in capsys.readouterr().err


def test_bad_inputs_are_reported_and_the_others_go_on(place, capsys):
    Path("photos/b.jpg").write_bytes(Path("photos/b.jpg").read_bytes()[:100])
    Path("empty").mkdir()
    code, out, error = run(capsys, "photos", "gone.jpg", "empty", "x*.jpg")
    assert code == 1
    assert out == f"photos/a.png\t{SAID['red']}\nphotos/trip/c.webp\t{SAID['blue']}\n"
    lines = error.splitlines()
    assert lines[0] == "showtell: gone.jpg: there is no such file."
    assert lines[1] == "showtell: empty: no image in this folder. Images are known by their suffix: .jpg, .png, ..."
    assert lines[2] == "showtell: x*.jpg: no image matches."
    assert lines[3].startswith("showtell: photos/b.jpg ")
    assert lines[4] == "showtell: 2 captioned, 4 failed."
    assert len(lines) == 5


def test_a_folder_below_that_can_not_be_read_is_not_passed_over(place, capsys, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("trip"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, out, error = run(capsys, "photos")
    assert (code, len(out.splitlines())) == (1, 2)
    assert error.splitlines()[0] == "showtell: photos/trip: this folder can't be read (Permission denied)."
    assert error.splitlines()[1] == "showtell: 2 captioned, 1 failed."


def test_impossible_names_are_bad_inputs_like_others(place, capsys):
    code, out, error = run(capsys, "x" * 5000, "photos/a.png")
    assert (code, len(out.splitlines())) == (1, 1)
    assert "there is no such file." in error


def test_options_reach_the_search(place, capsys, monkeypatch):
    """Every search option of the command line is one of SearchOptions, and arrives as what was typed."""
    seen = {}

    def stream(self, images, *, batch_size, numbers, attention, **search_options):
        seen.update(search_options, batch_size=batch_size)
        return iter([[]] * 0)

    monkeypatch.setattr("showtell.captioner.Captioner.stream", stream)
    monkeypatch.setattr(caption_module, "find_images", lambda names, column: ([], Finder()))
    rules = {"length_penalty": 0.25, "min_words": 2, "max_words": 8, "no_repeat_ngram": 3, "prefix": "a picture"}
    beam = {"beam": 4, "num": 2, "groups": 2, "diversity": 0.25}
    sampling = {"sample": True, "num": 2, "temperature": 0.5, "top_k": 7, "top_p": 0.5, "seed": 9}
    for typed in (rules | beam, rules | sampling):
        seen.clear()
        arguments = ["photos", "--ban", "red", "--ban", "blue", "--batch-size", "3"]
        for name, value in typed.items():
            arguments += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        assert run(capsys, *arguments)[0] == 0
        assert seen == typed | {"banned_words": ["red", "blue"], "batch_size": 3}


def test_help_mentions_all_options(capsys):
    assert main(["caption", "-h"]) == 0
    text = capsys.readouterr().out.replace("[INPUT]", "INPUT")  # Typer before 0.27
    shared = (
        "--model --batch-size --beam --groups --diversity --length-penalty --min-words --max-words --no-repeat-ngram"
    )
    sampling = "--ban --require --prefix --sample --temperature --top-k --top-p --seed"
    own = "INPUT --list --column --format --output --resume --explain --num -m -o -f -n -h"
    for option in f"{shared} {sampling} {own}".split():
        assert f" {option} " in text, option
    for format in ("text", "jsonl", "csv", "coco", "parquet", "tar"):
        assert format in text


def test_several_models_caption_as_one(place, capsys):
    save_fake_model(place / "other")
    assert run(capsys, "photos/a.png", "-m", "other") == (0, f"photos/a.png\t{SAID['red']}\n", "")


def test_ban(place, capsys):
    assert "red" not in run(capsys, "photos/a.png", "--ban", "Red")[1].split("\t")[1]


def test_require(place, capsys):
    said = run(capsys, "photos/a.png", "--require", "Green", "--require", "red")[1].split("\t")[1].split()
    assert {"green", "red"} <= set(said)
    code, _, error = run(capsys, "photos/a.png", "--require", "green", "--sample")
    assert (code, error.startswith("showtell: require and sample are both set")) == (2, True)


# Formats


def test_jsonl(place, capsys):
    _, out, _ = run(capsys, "photos", "--format", "jsonl", "--num", "2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == ["photos/a.png"] * 2 + ["photos/b.jpg"] * 2 + ["photos/trip/c.webp"] * 2
    assert rows[0].keys() == {"image", "caption", "log_prob", "confidence"}
    assert rows[0]["caption"] == SAID["red"]
    assert rows[0]["log_prob"] > rows[1]["log_prob"] or rows[0]["caption"] != rows[1]["caption"]


def test_csv_survives_names_with_commas_quotes_and_line_breaks(place, capsys):
    name = 'photos/a "b",\nc.png'
    Path("photos/a.png").rename(name)
    _, out, _ = run(capsys, "photos", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [(row["image"], row["caption"]) for row in rows] == [
        (name, SAID["red"]),
        ("photos/b.jpg", SAID["lime"]),
        ("photos/trip/c.webp", SAID["blue"]),
    ]
    assert all(-10 < float(row["log_prob"]) < 0 for row in rows)


def test_coco(place, capsys):
    picture("red").save("photos/COCO_val2014_000000000042.png")
    picture("blue").save("photos/trip/a.png")
    code, out, _ = run(capsys, "photos", "-o", "results.json")
    assert (code, out) == (0, "")
    results = json.loads(Path("results.json").read_text())
    assert {result["image_id"]: result["caption"] for result in results} == {
        42: SAID["red"],
        "a.png": SAID["red"],
        "b.jpg": SAID["lime"],
        "photos/trip/a.png": SAID["blue"],  # a second a.png
        "c.webp": SAID["blue"],
    }
    assert not list(place.glob(".results*")), "a temporary file stays behind"


def test_coco_to_stdout_and_of_nothing(place, capsys):
    Path("photos/a.png").write_bytes(b"")
    assert json.loads(run(capsys, "photos/a.png", "-f", "coco")[1]) == []
    assert len(json.loads(run(capsys, "photos", "-f", "coco")[1])) == 2


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("val2017/000000000139.jpg", 139),
        ("COCO_val2014_000000000042.jpg", 42),
        ("12.jpg", "12.jpg"),
        ("x/a.jpg", "a.jpg"),
    ],
)
def test_coco_image_ids(name, image_id):
    assert coco_image_id(name) == image_id


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("x.jsonl", "{"),
        ("x.ndjson", "{"),
        ("x.csv", "image,"),
        ("x.CSV", "image,"),
        ("x.tsv", "image\tcaption\tlog_prob\tconfidence\nphotos/a.png\t"),
        ("x.json", "["),
        ("x.txt", "photos"),
        ("x", "photos"),
    ],
)
def test_the_files_suffix_says_the_format(place, capsys, file, first):
    """With .gz behind it, the same is compressed; `score` reads all of them."""
    run(capsys, "photos", "-o", file)
    assert Path(file).read_text().startswith(first)
    run(capsys, "photos", "-o", f"{file}.gz")
    assert gzip.decompress(Path(f"{file}.gz").read_bytes()) == Path(file).read_bytes()
    if Path(file).suffix:
        expected = {f"photos/{name}": SAID[colour] for name, colour in WRITTEN}
        if file == "x.json":
            expected = {Path(name).name: said for name, said in expected.items()}
        for written in (file, f"{file}.gz"):
            assert read_predictions(written).captions == expected
    assert not list(place.glob(".*"))


@pytest.mark.parametrize("file", ["x.xlsx", "x.yaml.gz", "x.zip", "x.tar.gz", "x.parquet.gz"])
def test_a_suffix_that_says_no_format_is_refused(place, capsys, file):
    """Text lines in a file that is called a spreadsheet are nobody's wish."""
    code, out, error = run(capsys, "photos", "-o", file)
    assert (code, out) == (2, "")
    assert error.startswith(f"showtell: {file}")
    assert not Path(file).exists()


@pytest.mark.parametrize("file", ["x.csv.gz", "x.jsonl.gz", "x.txt.gz"])
def test_a_compressed_file_is_gone_on_with(place, capsys, monkeypatch, file):
    run(capsys, "photos", "-o", f"whole.{file}")
    encode = FakeEngine.encode
    with monkeypatch.context() as patch:

        def stop(self, images):
            if self.batches:
                raise KeyboardInterrupt
            return encode(self, images)

        patch.setattr(FakeEngine, "encode", stop)
        assert run(capsys, "photos", "-o", file, "--batch-size", "1")[0] == 130
    assert len(gzip.decompress(Path(file).read_bytes())) > 0
    assert run(capsys, "photos", "-o", file, "--resume", "--batch-size", "1")[0] == 0
    assert Path(file).read_bytes() == Path(f"whole.{file}").read_bytes()


def test_images_of_one_name_have_ids_of_their_own():
    names = ["x/a.jpg", "a.jpg", "y/a.jpg"]
    rows = json.loads("".join(coco_text({"image": name, "caption": "a dog"} for name in names)))
    assert [each["image_id"] for each in rows] == ["a.jpg", "./a.jpg", "y/a.jpg"]


def test_samples_of_a_shard_have_keys_of_their_own(place, capsys):
    names = ["a.b.png", "a b.png", "a_b.png", "a-b.png", "a;b.png"]
    for name in names:
        picture("red").save(name)
    assert run(capsys, *names, "-o", "x.tar")[0] == 0
    with tarfile.open("x.tar") as tar:
        assert len(set(tar.getnames())) == 3 * len(names)


def test_format_wins_over_the_suffix(place, capsys):
    run(capsys, "photos", "-o", "x.csv", "-f", "text")
    assert Path("x.csv").read_text().startswith("photos/a.png\t")


def test_names_on_a_terminal_move_no_cursor():
    assert printable("a\x1b[2J\tb\n.jpg") == r"a\x1b[2J\x09b\x0a.jpg"


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold Unicode only")
def test_a_name_that_is_not_unicode(place, capsys):
    """os.walk gives such a name as lone surrogates, which can't be written as UTF-8."""
    Path("photos/a.png").rename(os.fsdecode(b"photos/\xff.png"))
    for format in ("text", "jsonl", "csv", "tsv", "coco"):
        code, _, error = run(capsys, "photos", "-o", "out", "-f", format)
        assert (code, error) == (0, "")
        assert r"\xff.png" in Path("out").read_text(encoding="utf-8")


def test_results_are_written_as_they_are_made(place, capsys, monkeypatch):
    """A reader of the file sees each image's captions before the next batch is begun."""
    sizes = []
    encode = caption_module.load("m").engine.__class__.encode

    def watch(self, images):
        sizes.append(Path("x.jsonl").stat().st_size)
        return encode(self, images)

    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", watch)
    run(capsys, "photos", "-o", "x.jsonl", "--batch-size", "1")
    assert len(set(sizes)) == 3


# Going on


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Whole outputs of twelve images by (format, num), and the folder that they were made in."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        use_fake_engine(patch)
        save_fake_model(folder / "m")
        Path("photos").mkdir()
        for number in range(6):
            picture(("red", "lime", "blue")[number % 3]).save(f"photos/{number}.png")
        Path("photos/2.png").rename('photos/2 "x",\né.png')
        whole = {}
        for format in ("jsonl", "csv"):
            for num in (1, 3):
                out = Path(f"whole.{num}.{format}")
                assert main(["caption", "-m", "m", "photos", *RESUMED, "-n", str(num), "-o", str(out)]) == 0
                whole[format, num] = out.read_bytes()
    return folder, whole


RESUMED = ("--sample", "--seed", "7", "--batch-size", "4")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(format=st.sampled_from(["jsonl", "csv"]), num=st.sampled_from([1, 3]), data=st.data())
def test_resume_after_any_byte_gives_the_whole(outputs, format, num, data):
    """Killed at any byte, the file ends as if nothing had happened: the same samples, nothing twice."""
    folder, whole = outputs
    cut = data.draw(st.integers(0, len(whole[format, num])))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        use_fake_engine(patch)
        out = Path(f"cut.{format}")
        out.write_bytes(whole[format, num][:cut])
        assert main(["caption", "-m", "m", "photos", *RESUMED, "-n", str(num), "-o", str(out), "--resume"]) == 0
        assert out.read_bytes() == whole[format, num]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@pytest.mark.parametrize("num", [1, 3])
def test_every_cut_keeps_exactly_the_whole_images(outputs, format, num, tmp_path):
    """Cut at every byte of the last rows: kept are the images whose last row is there, to its line break."""
    whole = outputs[1][format, num]
    path = tmp_path / f"x.{format}"
    header = whole.index(b"\n") + 1 if format == "csv" else 0
    ends = ends_of_images(whole[header:], format, num)
    last_images = ends[-3][1]
    for cut in (*range(header + 40), *range(header + last_images - 2, len(whole) + 1)):
        path.write_bytes(whole[:cut])
        done = done_images(path, format, num, header_of(format))
        complete = [name for name, end in ends if header + end <= cut]
        assert done == set(complete), cut
        kept = max([header + end for _, end in ends if header + end <= cut], default=header if cut >= header else 0)
        assert path.stat().st_size == kept, cut


def ends_of_images(rows: bytes, format: str, num: int) -> list[tuple[str, int]]:
    """The images of an output and the byte behind the last row of each, found by writing the rows again."""
    text = io.StringIO(rows.decode(), newline="")
    if format == "csv":
        values = [row[:3] for row in csv.reader(text)]
    else:
        values = [(r["image"], r["caption"], r["log_prob"]) for r in map(json.loads, text)]
    ends, end = [], 0
    for n, (name, said, log_prob) in enumerate(values, 1):
        row = {"image": name, "caption": said, "log_prob": float(log_prob), "confidence": None}
        end += len(row_text(format, row).encode())
        if n % num == 0:
            ends.append((name, end))
    assert end == len(rows)
    return ends


def test_resume_retries_what_failed(place, capsys):
    good = Path("photos/b.jpg").read_bytes()
    Path("photos/b.jpg").write_bytes(b"")
    assert run(capsys, "photos", "-o", "x.jsonl")[0] == 1
    Path("photos/b.jpg").write_bytes(good)
    assert run(capsys, "photos", "-o", "x.jsonl", "--resume")[0] == 0
    names = [json.loads(line)["image"] for line in Path("x.jsonl").read_text().splitlines()]
    assert sorted(names) == ["photos/a.png", "photos/b.jpg", "photos/trip/c.webp"]


def test_resume_does_only_what_is_missing(place, capsys, monkeypatch):
    run(capsys, "photos", "-o", "x.csv")
    before = Path("x.csv").read_bytes()
    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", lambda self, images: pytest.fail("nothing is missing"))
    assert run(capsys, "photos", "-o", "x.csv", "--resume") == (0, "", "")
    assert Path("x.csv").read_bytes() == before


def test_resume_starts_a_file_that_is_not_there(place, capsys):
    assert run(capsys, "photos", "-o", "x.csv", "--resume")[0] == 0
    assert len(Path("x.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("csv", "name,price\nx,1\n"),
        ("csv", "image,caption,log_prob,confidence\na.png,a dog\nb.png,a dog,-1,\n"),
        ("csv", "image,caption,log_prob,confidence\na.png,a dog,often,\nb.png,a dog,-1,\n"),
        ("jsonl", '{"x": 1}\n{"image": "a", "caption": "b", "log_prob": -1}\n'),
        ("jsonl", "[1]\n[2]\n"),
        ("jsonl", "image,caption\na,b\n"),
    ],
)
def test_resume_refuses_and_keeps_another_programs_file(tmp_path, format, text):
    path = tmp_path / f"x.{format}"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"can't be continued: row \d is not one .*leave out --resume"):
        done_images(path, format, 1, header_of(format))
    assert path.read_text() == text


@pytest.mark.parametrize(("made", "asked"), [(1, 2), (2, 1), (3, 2)])
def test_resume_refuses_another_number_of_captions(place, capsys, made, asked):
    run(capsys, "photos", "-o", "x.jsonl", "-n", made)
    before = Path("x.jsonl").read_bytes()
    code, _, error = run(capsys, "photos", "-o", "x.jsonl", "-n", asked, "--resume")
    assert code == 2
    assert f"x.jsonl does not hold {asked} captions for each image. Give the same --num as before." in error
    assert Path("x.jsonl").read_bytes() == before


@pytest.mark.parametrize("file", ["x.jsonl", "x.json"])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(place, capsys, monkeypatch, file):
    encode = caption_module.load("m").engine.__class__.encode

    def interrupt(self, images):
        if len(self.batches) == 1:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr("tests.fake_model.FakeEngine.encode", interrupt)
    code, _, error = run(capsys, "photos", "-o", file, "--batch-size", "2")
    assert code == 130
    assert error == ("showtell: Stopped by Ctrl-C after 2 of 3 images. The same command with --resume continues.\n")
    assert Path(file).read_text().count("image") >= 2


def test_a_closed_pipe_ends_quietly(place):
    """`showtell caption photos | head -1`"""
    code = """
import sys
from tests.fake_model import *
from showtell import captioner
captioner._engine = lambda bundle, *_: FakeEngine(bundle.tokenizer)
from showtell.cli import main
sys.exit(main(["caption", "-m", "m", "--list", "list"]))
"""
    for number in range(40):
        picture("red").save(f"photos/{number}.png")
    Path("list").write_text("\n".join(f"photos/{number}.png" for number in range(40)))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            code.replace("import sys\n", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n", 1),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(1)
    process.stdout.close()
    error = process.stderr.read()
    process.wait(timeout=20)
    assert b"Traceback" not in error
    assert b"showtell" not in error


# URLs


@pytest.fixture
def site(place):
    """A web server on this machine, for the files of `place`."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Silent, directory=place)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["a.png", "ein Käfer.png"])
def test_urls(site, capsys, name):
    """A pasted URL may hold spaces and letters that are not percent-encoded."""
    picture("red").save(f"photos/{name}")
    url = f"{site}/photos/{name}"
    code, out, _ = run(capsys, url)
    assert (code, out) == (0, f"{url}\t{SAID['red']}\n")


def test_urls_that_fail_are_named(site, capsys, monkeypatch):
    Path("big.jpg").write_bytes(b"x" * 2000)
    monkeypatch.setattr(storage, "LARGEST", 1000)
    urls = [
        f"{site}/gone.jpg",
        f"{site}/photos/notes.txt",
        f"{site}/big.jpg",
        "http://127.0.0.1:1/x.jpg",
        "http://[x/a",
    ]
    code, out, error = run(capsys, *urls)
    assert (code, out) == (1, "")
    lines = error.splitlines()
    assert lines[0] == f"showtell: {urls[0]} can't be fetched: the server answers 404 File not found."
    assert lines[1].startswith(f"showtell: {urls[1]} is not an image")
    assert lines[2] == f"showtell: {urls[2]} is larger than 0.000954 MiB. Download it, and give the file."
    assert lines[3].startswith(f"showtell: {urls[3]} can't be fetched: ")
    assert lines[4].startswith(f"showtell: {urls[4]} can't be fetched: ")


def test_a_url_that_never_answers(place, capsys, monkeypatch):
    import socket

    monkeypatch.setattr(urls, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg"
        code, _, error = run(capsys, url)
    assert code == 1
    assert f"{url} can't be fetched: " in error


# Progress


def test_no_progress_outside_a_terminal(place, capsys):
    assert run(capsys, "photos", "-o", "x.jsonl")[2] == ""


def test_progress_on_a_terminal(place, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, out, error = run(capsys, "photos", "-o", "x.jsonl")
    assert (code, out) == (0, "")
    assert "captioning" in error
    assert "3/3" in error


# How sure it is


@pytest.fixture
def unsure(place):
    """A model that can tell, and is about as sure as not."""
    save_fake_model(place / "m", confidence=Confidence(weights=(7.0, 0.0, 0.0), bias=0.9, rarity=(1.0,) * 16))
    return place


def test_confidence_stands_in_rows_and_in_words(unsure, capsys):
    rows = [json.loads(line) for line in run(capsys, "photos", "--format", "jsonl")[1].splitlines()]
    assert all(0 < row["confidence"] < 1 for row in rows)
    assert "sure" not in rows[0]
    out = run(capsys, "photos/a.png", "--confidence")[1]
    assert out == f"photos/a.png\t{SAID['red']}\t{in_words(rows[0]['confidence'])}\n"
    csv_row = next(csv.DictReader(io.StringIO(run(capsys, "photos/a.png", "--format", "csv")[1])))
    assert float(csv_row["confidence"]) == rows[0]["confidence"]


def test_captions_under_the_least_confidence_are_empty_and_say_why(unsure, capsys):
    row = json.loads(run(capsys, "photos/a.png", "--format", "jsonl")[1])
    sure = row["confidence"]
    kept = json.loads(run(capsys, "photos/a.png", "--format", "jsonl", "--min-confidence", sure - 0.01)[1])
    assert kept == row
    left_out = json.loads(run(capsys, "photos/a.png", "--format", "jsonl", "--min-confidence", sure + 0.02)[1])
    assert left_out["caption"] == ""
    assert left_out["reason"] == f"confidence {sure:.2f} is under {sure + 0.02:g}"
    assert run(capsys, "photos/a.png", "--min-confidence", sure + 0.02)[1] == "photos/a.png\t\n"


def test_a_model_that_cannot_tell_says_so(place, capsys):
    for flags in (["--min-confidence", 0.5], ["--confidence"]):
        code, _, error = run(capsys, "photos/a.png", *flags)
        assert code == 2
        assert "fake has no calibrated confidence. Leave the option out, or fit it to 50 captioned photos: " in error
    assert json.loads(run(capsys, "photos/a.png", "--format", "jsonl")[1])["confidence"] is None


# A text beside each photo


def test_txt_writes_beside_each_photo_and_leaves_what_is_there(place, capsys):
    Path("photos/b.txt").write_text("my own words\n")
    code, out, error = run(capsys, "photos", "--format", "txt", "--prepend", "photo of ", "--append", ", film grain")
    assert (code, out) == (0, "")
    assert Path("photos/a.txt").read_text() == f"photo of {SAID['red']}, film grain\n"
    assert Path("photos/trip/c.txt").read_text() == f"photo of {SAID['blue']}, film grain\n"
    assert Path("photos/b.txt").read_text() == "my own words\n"
    assert "2 texts written beside their photos, 1 had one already (--overwrite replaces it)." in error
    assert "3 had one already" in run(capsys, "photos", "--format", "txt")[2]
    assert run(capsys, "photos", "--format", "txt", "--overwrite")[0] == 0
    assert Path("photos/b.txt").read_text() == f"{SAID['lime']}\n"
    assert Path("photos/a.txt").read_text() == f"{SAID['red']}\n"


def test_txt_is_read_as_a_data_set(place, capsys):
    """The loop: caption, correct, train."""
    assert run(capsys, "photos", "--format", "txt")[0] == 0
    assert {example.captions for example in load_data("folder:photos").examples} >= {(SAID["red"],)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos", "--prepend", "x"], "--prepend, --append and --overwrite are for --format txt."),
        (["photos", "--format", "txt", "-o", "x.txt"], "The txt format writes a text file beside each photo."),
    ],
)
def test_txt_refuses_what_it_does_not_do(place, capsys, arguments, said):
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert said in error


def test_two_photos_of_one_name_do_not_share_a_text(place, capsys):
    picture("lime").save("photos/a.webp")
    code, _, error = run(capsys, "photos", "--format", "txt")
    assert code == 2
    assert "would both have the text a.txt. Rename one of them" in error
