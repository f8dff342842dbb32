"""Killed, and gone on with: the finished file is the one of a run that nothing disturbed, in every format."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from showtell import captioner as captioner_module
from showtell.cli import main
from showtell.engines import exported
from showtell.results import outputs
from showtell.results.journal import journal_of
from tests.fake_model import FakeEngine, picture, save_fake_model

REPOSITORY = Path(__file__).parents[2]
FORMATS = ("text", "jsonl", "csv", "tsv", "coco", "parquet", "tar")
SUFFIX = {"text": "txt", "coco": "json"}
IMAGE = dict.fromkeys(FORMATS, b".png") | {"tar": b"log_probs"}  # what an image leaves in the file once
COUNT = 60


class NeighbourlyEngine(FakeEngine):
    """Its log-probabilities depend on how many images are captioned together, as those of a fast product do.

    More than they do really, so that a difference shows in the fourth decimal.
    """

    threads = 1
    delay = 0.0

    def encode(self, images):
        time.sleep(self.delay)
        return {**super().encode(images), "batch": np.full(len(images), len(images))}

    def step(self, memory, state, tokens, parents, top):
        proposals, state = super().step(memory, state, tokens, parents, top)
        log_probs = proposals.log_probs - 0.001 * memory["batch"][:, None, None].astype(np.float32)
        return proposals.__class__(proposals.ids, log_probs, proposals.attention), state


def use_engine(monkeypatch) -> None:
    monkeypatch.setattr(captioner_module, "_engine", lambda bundle, *_: NeighbourlyEngine(bundle.tokenizer))
    monkeypatch.setattr(exported, "CORES", 2)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A model `m`, sixty photos in three folders, two of them damaged."""
    monkeypatch.chdir(tmp_path)
    use_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    for number in range(COUNT):
        Path(f"photos/{number % 3}").mkdir(parents=True, exist_ok=True)
        picture(("red", "lime", "blue")[number % 3]).save(f"photos/{number % 3}/{number:02}.png")
    for bad in ("photos/0/03.png", "photos/2/50.png"):
        Path(bad).write_bytes(b"nonsense")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, list[str]]:
    """Exit code and the lines of stderr."""
    capsys.readouterr()
    code = main(["caption", "-m", "m", "photos", "--batch-size", "4", *map(str, arguments)])
    return code, capsys.readouterr().err.splitlines()


KILLED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from showtell import captioner
from showtell.engines import exported
from tests.cli.test_resume import NeighbourlyEngine
NeighbourlyEngine.delay = 0.1
captioner._engine = lambda bundle, *_: NeighbourlyEngine(bundle.tokenizer)
exported.CORES = 2
from showtell.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("format", FORMATS)
def test_killed_and_resumed_is_undisturbed(place, capsys, format):
    """kill -9 in the middle, when it comes: nothing is lost but the batches in work, and nothing comes twice."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    whole, out = (Path(f"{name}.{SUFFIX.get(format, format)}") for name in ("whole", "out"))
    failures = run(capsys, "-o", whole)
    assert failures[0] == 1
    grows = journal_of(out) if format in ("coco", "parquet") else out
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(REPOSITORY), *f"caption -m m photos --batch-size 4 -o {out}".split()],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not (grows.exists() and grows.read_bytes().count(IMAGE[format]) >= 12):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = grows.read_bytes().count(IMAGE[format])
    assert 12 <= left < COUNT - 2, "it was not killed in the middle"
    assert journal_of(out).exists()

    captioned = []
    encode = NeighbourlyEngine.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NeighbourlyEngine, "encode", lambda self, x: (captioned.append(len(x)), encode(self, x))[1])
        assert run(capsys, "-o", out, "--resume") == failures
    assert sum(captioned) <= COUNT - left + 4, "what was done is done again"
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in place.iterdir()} == {"m", "photos", whole.name, out.name}, "something is left behind"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 0.999])
def test_a_torn_last_line_is_made_again(place, capsys, format, share):
    """A disk that was full, a machine that lost its power: a run whose file ends anywhere goes on."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    whole, out = (Path(f"{name}.{SUFFIX.get(format, format)}") for name in ("whole", "out"))
    kept = b""
    unlink = Path.unlink

    def keep(self, **options):
        nonlocal kept
        if self == journal_of(whole):
            kept = self.read_bytes()
        unlink(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", keep)
        failures = run(capsys, "-o", whole)
    if format in ("coco", "parquet"):
        header = kept.index(b"\n") + 1
        journal_of(out).write_bytes(kept[: header + int(share * (len(kept) - header))])
    else:
        journal_of(out).write_bytes(kept)
        out.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert run(capsys, "-o", out, "--resume") == failures
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_other_options_are_refused(place, capsys, monkeypatch, format):
    """Captions of two beams, or of two models, in one file would look like those of one."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    out = Path(f"out.{SUFFIX.get(format, format)}")
    interrupt_after(monkeypatch, 3)
    code, _ = run(capsys, "-o", out, "--beam", "2", "--ban", "red")
    assert code == 130
    monkeypatch.undo()
    monkeypatch.chdir(place)
    use_engine(monkeypatch)
    before = {path: path.read_bytes() for path in (out, journal_of(out))}
    again = "Use the same options as before, or leave out --resume to begin again."
    for arguments, message in (
        (["--ban", "red"], "with beam 2, not 3."),
        (["--beam", "2"], "with banned_words red, not none."),
        (["--beam", "2", "--ban", "red", "--sample"], "with sample False, not True."),
    ):
        assert run(capsys, "-o", out, "--resume", *arguments) == (2, [f"showtell: {out} was begun {message} {again}"])
    save_fake_model(place / "m", training={"epochs": 2})
    code, [error] = run(capsys, "-o", out, "--resume", "--beam", "2", "--ban", "red")
    assert code == 2
    assert error.startswith(f"showtell: {out} was begun with model fake ")
    assert {path: path.read_bytes() for path in before} == before, "a refusal changes a file"


def interrupt_after(monkeypatch, batches: int) -> None:
    """Press Ctrl-C when some batches are encoded."""
    encode, seen = NeighbourlyEngine.encode, []

    def interrupt(self, images):
        seen.append(1)
        if len(seen) > batches:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(NeighbourlyEngine, "encode", interrupt)
    monkeypatch.setattr(exported, "CORES", 1)


@pytest.mark.parametrize("format", ["coco", "parquet"])
def test_what_is_done_at_ctrl_c_can_be_read(place, capsys, monkeypatch, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    interrupt_after(monkeypatch, 3)
    out = Path(f"out.{SUFFIX.get(format, format)}")
    code, errors = run(capsys, "-o", out)
    assert code == 130
    assert errors == [
        errors[0],
        "showtell: Stopped by Ctrl-C after 11 of 60 images. The same command with --resume continues.",
    ]
    assert errors[0].startswith("showtell: photos/0/03.png is not an image")
    if format == "coco":
        assert len(json.loads(out.read_text())) == 11
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(out).num_rows == 11


def test_a_finished_array_is_not_gone_on_with(place, capsys):
    """Its image ids don't tell files of one name apart: what is done can't be seen in it."""
    run(capsys, "-o", "x.json")
    before = Path("x.json").read_bytes()
    code, [error] = run(capsys, "-o", "x.json", "--resume")
    assert code == 2
    assert error == (
        "showtell: x.json is finished: an unfinished coco file would have .x.json.unfinished beside it. "
        "Leave out --resume to begin again."
    )
    assert Path("x.json").read_bytes() == before


def test_without_resume_a_run_begins_again(place, capsys, monkeypatch):
    """What another run has left does not get in its way."""
    run(capsys, "-o", "whole.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        run(capsys, "-o", "x.jsonl", "--beam", "2")
    run(capsys, "-o", "x.jsonl")
    assert Path("x.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_two_runs_do_not_write_one_file(place, capsys, format):
    """The second says so, whether it would go on or begin again; the first ends as if it were alone."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    whole, out = (Path(f"{name}.{SUFFIX.get(format, format)}") for name in ("whole", "out"))
    failures = run(capsys, "-o", whole)
    encode, second = NeighbourlyEngine.encode, []

    def begin_another(self, images):
        if not second:
            second.append(None)
            second[:] = [main(["caption", "-m", "m", "photos", "-o", str(out), *more]) for more in ([], ["--resume"])]
        return encode(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NeighbourlyEngine, "encode", begin_another)
        code, errors = run(capsys, "-o", out)
    refused = f"showtell: Another run is writing {out}. Wait until it has ended, or choose another -o FILE."
    assert second == [2, 2]
    assert (code, [line for line in errors if line != refused]) == failures
    assert errors.count(refused) == 2
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in place.iterdir()} == {"m", "photos", whole.name, out.name}


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_a_sentence_and_gone_on_from(place, capsys, monkeypatch, format):
    """What was written of the image in work is taken back: half a row would look like a row."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    whole, out = (Path(f"{name}.{SUFFIX.get(format, format)}") for name in ("whole", "out"))
    failures = run(capsys, "-o", whole)
    append = outputs.append
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "append", lambda file, content: append(_Full(file), content))
        code, errors = run(capsys, "-o", out)
    assert code == 1
    assert errors[-1] == (
        f"showtell: {out} can't be written: No space left on device. The same command with --resume continues."
    )
    if format in ("text", "jsonl", "csv"):
        assert out.read_bytes().endswith(b"\n")
    assert run(capsys, "-o", out, "--resume") == failures
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("format", ["jsonl", "tar"])
def test_a_disk_that_is_full_at_the_begin_leaves_the_old_file(place, capsys, monkeypatch, format):
    out = Path(f"out.{format}")
    run(capsys, "-o", out)
    before = out.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, errors = run(capsys, "-o", out)
    assert (code, errors[-1]) == (
        2,
        f"showtell: {out} can't be written: No space left on device. Choose another -o FILE.",
    )
    assert out.read_bytes() == before
    assert not journal_of(out).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no such device")
def test_stdout_that_is_full(place):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(REPOSITORY), *["caption", "-m", "m", "photos/1"]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "showtell: stdout can't be written: No space left on device.\n")


class _Full:
    """A file on a disk that is full after so many bytes; the last piece that it takes is short."""

    def __init__(self, file) -> None:
        self._file = file
        self.fileno, self.truncate = file.fileno, file.truncate

    def write(self, content) -> int:
        left = 2000 - os.fstat(self.fileno()).st_size
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(content[:left])


def test_a_journal_that_is_cut_in_its_first_line_is_none(place, capsys):
    for name in ("x.jsonl", "x.json"):
        journal_of(Path(name)).write_text('{"made_with": {"beam"')
        assert run(capsys, "-o", name, "--resume")[0] == 1
        assert Path(name).read_text().count(".png") == COUNT - 2


def test_an_empty_folder(place, capsys):
    Path("empty").mkdir()
    code = main(["caption", "-m", "m", "empty", "-o", "x.csv"])
    assert code == 1
    assert capsys.readouterr().err.splitlines() == [
        "showtell: empty: no image in this folder. Images are known by their suffix: .jpg, .png, ...",
        "showtell: 0 captioned, 1 failed.",
    ]
    assert Path("x.csv").read_text() == "image,caption,log_prob,confidence\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize(
    ("name", "format"),
    [("/dev/stdout", "text"), *(("/dev/null", format) for format in ("text", "jsonl", "csv", "coco", "tar"))],
)
def test_a_device_has_no_journal(place, capfd, name, format):
    """`-o /dev/stdout` must not try to keep a file in /dev."""
    assert main(["caption", "-m", "m", "photos/1", "-o", name, "-f", format]) == 0
    assert not journal_of(Path(name)).exists()


def test_a_tree_is_listed_without_opening_a_file(tmp_path, monkeypatch):
    """So 100,000 photos are a second, not a minute; in a fixed order."""
    from showtell.images.sources import find_images

    monkeypatch.chdir(tmp_path)
    for folder in ("b", "a"):
        Path(folder).mkdir()
        for number in range(1000):
            Path(folder, f"{number}.jpg").touch()
    begin = time.process_time()
    images, finder = find_images(["."])
    assert time.process_time() - begin < 1
    names = [image.name for image in images]
    assert (len(names), finder.problems) == (2000, [])
    assert names == sorted(names)
    assert names[0] == "a/0.jpg"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_gets_every_row(place):
    """It can't be asked how long it is, and is opened once: a reader takes the first end for the last."""
    os.mkfifo("pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    assert main(["caption", "-m", "m", "photos/1", "-o", "pipe", "-f", "csv"]) == 0
    reader.join(timeout=20)
    assert len(read[0].splitlines()) == 1 + 20
    assert not journal_of(Path("pipe")).exists()
