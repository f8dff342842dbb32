"""`showtell caption --engine ray` on a local cluster of two workers: one row an image, whoever is killed."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ray = pytest.importorskip("ray", reason="the extra 'bulk' is not installed")

from showtell.bulk.parts import Part  # noqa: E402
from showtell.bulk.results import Results  # noqa: E402
from showtell.bundle import load_bundle, save_bundle  # noqa: E402
from showtell.cli import main  # noqa: E402
from showtell.export.graphs import export  # noqa: E402
from tests.tiny_model import save_tiny_model  # noqa: E402

# One folder's photos by name: a blocked one is a pipe, and pipes in a folder are passed over.
INPUTS = ["photos/0", *(f"photos/1/{n}.png" for n in range(10, 20)), "photos/2", "photos/3", "s.tar", "t.parquet"]
BROKEN = {"photos/0/03.png", "photos/2/22.png", "s.tar/5.png", "t.parquet/6"}
COUNT = 60
PARTS = 6  # four of ten loose files, the shard, the table
STUCK = Path("photos/1/11.png")
RUN = "from showtell.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder to work in: a small exported model, sixty images, and what one process says of them; and a cluster."""
    folder = tmp_path_factory.mktemp("bulk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else workers wait for whatever else the machine does
        export(load_bundle(model_that_sees(folder)), folder / "m", np.full((1, 3, 64, 64), 0.5, np.float32))
        write_images()
        assert main(["caption", "-m", "m", *INPUTS, "-o", "expected.parquet", "--engine", "onnx"]) == 1
        start_cluster()
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield folder
        ray.shutdown()


def model_that_sees(folder: Path) -> Path:
    """A random encoder's features are so faint that all images got one caption."""
    bundle = load_bundle(save_tiny_model(folder / "trained"))
    weights = bundle.weights()
    weights["decoder.image.weight"] = weights["decoder.image.weight"] * 1e6
    save_bundle(bundle.path, bundle.config, bundle.tokenizer, weights, "# tiny")
    return bundle.path


def start_cluster() -> None:
    """Two cores. Ray gives its own processes 15 seconds to start in: little, where cores are shared."""
    for tries in range(4):
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
            return
        except Exception:  # it has no class of its own
            ray.shutdown()
            if tries == 3:
                raise


def write_images() -> None:
    """Forty loose files, a shard of ten and a table of ten; of each, some are broken."""
    generator = np.random.default_rng(0)

    def image() -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (64, 48), tuple(generator.integers(0, 256, 3).tolist())).save(file, "PNG")
        return file.getvalue()

    for number in range(40):
        path = Path(f"photos/{number // 10}/{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"nonsense" if str(path) in BROKEN else image())
    with tarfile.open("s.tar", "w") as tar:
        for number in range(10):
            data = image() if number != 5 else b"nonsense"
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    cells = [{"bytes": image() if number != 6 else b"", "path": None} for number in range(10)]
    parquet.write_table(pa.table({"image": cells, "id": list(range(10))}), "t.parquet", row_group_size=6)


class Blocked:
    """A photo that nobody can read until it is `freed`: who opens it waits. So the others can be in the middle."""

    def __enter__(self) -> "Blocked":
        self.photo = STUCK.rename("photo-elsewhere")
        os.mkfifo(STUCK)
        return self

    def free(self) -> None:
        self.photo.replace(STUCK)

    def __exit__(self, *_: object) -> None:
        if Path(self.photo).exists():
            self.free()


def arguments(out: str, *more: str) -> list[str]:
    return ["caption", "-m", "m", *INPUTS, "--engine", "ray", "--out", out, "--part-size", "10", *more]


def wait_for_the_others(out: str) -> int:
    """Until two parts are done, and one waits for the blocked photo; the process that does."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        notes = {path.stem: json.loads(path.read_text() or "{}") for path in Path(out).glob("_showtell/attempts/*")}
        if len(list(Path(out).glob("part-*"))) >= 2 and "pid" in notes.get("000001", {}):
            return int(notes["000001"]["pid"])
        time.sleep(0.02)
    raise AssertionError("nobody waits for the blocked photo")


def check(out: str) -> None:
    """One row an image: the captions that one process finds, and errors for those that it finds broken."""
    rows = parquet.read_table(out).to_pylist()
    expected = {row["image"]: row for row in parquet.read_table("expected.parquet").to_pylist()}
    assert len(rows) == COUNT
    captioned = {row["image"]: row for row in rows if row["error"] is None}
    assert {row["image"] for row in rows} - set(captioned) == BROKEN
    assert {name: row["caption"] for name, row in captioned.items()} == {
        n: row["caption"] for n, row in expected.items()
    }
    for name, row in captioned.items():
        assert row["log_prob"] == pytest.approx(expected[name]["log_prob"], abs=2e-3)
    assert len({row["caption"] for row in captioned.values()}) > 3, "all images are alike to this model"


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_and_doubles_nothing(place, capsys):
    """kill -9 of an actor in the middle of a part, while others are done."""
    killed = []

    def kill() -> None:
        killed.append(wait_for_the_others("killed"))
        os.kill(killed[0], signal.SIGKILL)
        blocked.free()

    with Blocked() as blocked:
        thread = threading.Thread(target=kill)
        thread.start()
        code = main(arguments("killed", "--workers", "2"))
        thread.join()
    assert (code, len(killed)) == (1, 1)
    assert f"showtell: {COUNT - 4} captioned, 4 failed." in capsys.readouterr().err
    assert len(list(Path("killed").glob("part-*"))) == PARTS
    check("killed")


@pytest.mark.slow
def test_a_driver_that_is_killed_is_gone_on_with(place, capsys):
    """kill -9 of the command itself; run again, it does what is missing, and only that."""
    with Blocked() as blocked:
        process = subprocess.Popen([sys.executable, "-c", RUN, *arguments("resumed")], stderr=subprocess.PIPE)
        wait_for_the_others("resumed")
        process.kill()
        process.wait()
        blocked.free()
    before = {path: path.stat().st_mtime_ns for path in Path("resumed").glob("part-*")}
    assert 2 <= len(before) < PARTS

    assert main(arguments("resumed")) == 2
    assert "resumed already holds captions. Add --resume to continue" in capsys.readouterr().err
    assert main(arguments("resumed", "--resume", "--beam", "1")) == 2
    assert "resumed was begun with beam 3, not 1." in capsys.readouterr().err

    picture = Path("photos/0/new.png")  # after the run has begun: the list of parts must not shift
    Image.new("RGB", (9, 9)).save(picture)
    try:
        assert main(arguments("resumed", "--resume")) == 1
    finally:
        picture.unlink()
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is done again"
    check("resumed")
    assert main(arguments("resumed", "--resume")) == 0, "nothing is left to fail"
    assert "0 captioned" in capsys.readouterr().err


@pytest.mark.slow
def test_what_stops_a_worker_is_said(place, capsys):
    """Here a damaged list of parts; a full disk comes the same way."""
    results = Results("stopped")
    results.make_folders()
    results.begin([Part("files", ("photos/0/00.png",))], {"folder": "."})
    Path("stopped/_showtell/parts.jsonl").write_text("nonsense\n")
    command = ["caption", "-m", "m", "photos/0/00.png", "--engine", "ray"]
    assert main([*command, "--out", "stopped", "--resume"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("showtell: A worker failed: JSONDecodeError: Expecting value")
    assert line.endswith("Fix that. The same command with --resume continues.")
    assert main([*command, "--out", "few", "--threads", "3"]) == 2
    assert "1 x 3 threads need 3 cores, but the cluster has 2." in capsys.readouterr().err
    assert not Path("few").exists()
