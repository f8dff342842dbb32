"""`showtell caption --engine ray`: options, and going on; here this process plays the cluster."""

import sys
from contextlib import chdir
from pathlib import Path

import pytest

from showtell.bulk import cluster
from showtell.bulk.captioning import PartCaptioner
from showtell.bulk.cluster import workers_of_cluster
from showtell.bulk.results import Results
from showtell.captioner import load
from showtell.cli import main
from showtell.errors import ShowtellError
from tests.fake_model import picture, save_fake_model, use_fake_engine

parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec")


def pretended(models, work, parts, workers):
    """What the cluster yields."""
    caption = PartCaptioner(load("m"), work.options, Results(work.where), work.made_with, work.batch_size)
    with chdir(work.folder):
        for number, place in parts.items():
            yield caption(number, caption.results.part(*place))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A model `m` and four photos, one of them broken."""
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    Path("photos").mkdir()
    for number in range(3):
        picture("red").save(f"photos/{number}.png")
    Path("photos/3.png").write_bytes(b"nonsense")
    monkeypatch.setattr(cluster, "workers_of_cluster", lambda workers, threads: 1)
    monkeypatch.setattr(cluster, "captioned_parts", pretended)
    return tmp_path


def run(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines of stderr."""
    code = main(["caption", "-m", "m", "--engine", "ray", *arguments])
    return code, capsys.readouterr().err.splitlines()


def test_a_folder_of_tables(place, capsys):
    code, lines = run(capsys, "photos", "nowhere", "--out", "out", "--part-size", "3")
    assert (code, lines) == (
        1,
        [
            "showtell: nowhere: there is no such file.",
            "showtell: 3 captioned, 1 failed.",
            "showtell: the column 'error' in out says why.",
        ],
    )
    rows = parquet.read_table("out").to_pylist()
    assert [row["image"] for row in rows] == [f"photos/{number}.png" for number in range(4)]
    assert {path.name for path in Path("out").iterdir()} == {"part-000000.parquet", "part-000001.parquet", "_showtell"}
    assert {path.name for path in Path("out/_showtell").iterdir()} == {"manifest.json", "parts.jsonl"}


def test_without_failures_it_ends_well(place, capsys):
    assert run(capsys, "photos/0.png", "--out", "out") == (0, ["showtell: 1 captioned, 0 failed."])


def test_captions_are_not_written_over(place, capsys):
    run(capsys, "photos", "--out", "out")
    assert run(capsys, "photos", "--out", "out") == (
        2,
        ["showtell: out already holds captions. Add --resume to continue, or choose another --out."],
    )


def test_resuming_does_what_is_missing(place, capsys):
    """Also with other parts than were asked for first, and from another folder: the run's own list holds."""
    run(capsys, "photos", "--out", "out", "--part-size", "1")
    Path("out/part-000001.parquet").unlink()
    picture("red").save("photos/00.png")
    out = str(Path("out").resolve())
    assert run(capsys, "photos", "--out", out, "--resume") == (0, ["showtell: 1 captioned, 0 failed."])
    rows = parquet.read_table("out").to_pylist()
    assert [row["image"] for row in rows] == [f"photos/{number}.png" for number in range(4)]


def test_resuming_what_nobody_began_begins_it(place, capsys):
    assert run(capsys, "photos/0.png", "--out", "out", "--resume")[0] == 0


def test_resuming_from_another_folder_finds_the_photos(place, capsys, monkeypatch):
    run(capsys, "photos", "--out", "out", "--part-size", "1")
    Path("out/part-000001.parquet").unlink()
    Path("elsewhere").mkdir()
    (place / "elsewhere/m").symlink_to(place / "m")
    monkeypatch.chdir("elsewhere")
    assert run(capsys, "photos", "--out", "../out", "--resume")[0] == 0


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (["photos", "--num", "2"], "out was begun with num 1, not 2."),
        (["photos/0.png"], "out was begun with inputs photos ("),
        (["photos", "--column", "x"], "out was begun with column None, not x."),
        (["photos", "--worker-engine", "openvino"], "out was begun with engine onnx, not openvino."),
    ],
)
def test_other_options_are_refused(place, capsys, changed, problem):
    run(capsys, "photos", "--out", "out")
    code, (line,) = run(capsys, *changed, "--out", "out", "--resume")
    assert code == 2
    assert line.startswith(f"showtell: {problem}")


def test_another_model_is_refused(place, capsys):
    """Of the same name, too: its weights differ."""
    run(capsys, "photos", "--out", "out")
    with Path("m/model.safetensors").open("ab") as file:
        file.write(b"\0")
    code, (line,) = run(capsys, "photos", "--out", "out", "--resume")
    assert code == 2
    assert line.startswith("showtell: out was begun with model fake ")


def test_a_run_without_images_leaves_nothing_to_go_on_with(place, capsys):
    """A slip of the pen in INPUT must not block --out."""
    assert run(capsys, "nowhere", "--out", "out")[0] == 1
    assert run(capsys, "photos/0.png", "--out", "out")[0] == 0


def test_ctrl_c(place, capsys, monkeypatch):
    def stopped(*arguments):
        yield next(pretended(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "captioned_parts", stopped)
    assert run(capsys, "photos", "--out", "out", "--part-size", "1") == (
        130,
        ["showtell: Stopped by Ctrl-C after 1 of 4 parts. The same command with --resume continues."],
    )
    monkeypatch.setattr(cluster, "captioned_parts", pretended)
    assert run(capsys, "photos", "--out", "out", "--resume")[1][0] == "showtell: 2 captioned, 1 failed."


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--engine", "ray"], "--engine ray writes a folder. Add --out DIR."),
        (["--engine", "ray", "--out", "out", "-o", "x.csv"], "--engine ray writes Parquet files only."),
        (["--engine", "ray", "--out", "out", "--explain", "x"], "--engine ray writes Parquet files only."),
        (["--engine", "ray", "--out", "out", "--write-metadata"], "--engine ray writes Parquet files only."),
        (["--out", "out"], "--out is for a cluster. Add --engine ray, or use -o FILE."),
        (["--workers", "2"], "--workers is for a cluster."),
    ],
)
def test_options_that_do_not_fit(place, capsys, arguments, problem):
    assert main(["caption", "-m", "m", "photos", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"showtell: {problem}")
    assert not Path("out").exists()


@pytest.mark.parametrize("package", ["ray", "fsspec.core"])
def test_missing_packages_are_named_before_anything_is_written(place, capsys, monkeypatch, package):
    monkeypatch.setattr(cluster, "workers_of_cluster", workers_of_cluster)
    monkeypatch.setitem(sys.modules, package, None)
    code, (line,) = run(capsys, "photos", "--out", "out")
    assert code == 2
    assert line.endswith("needs packages that are not installed. Run: pip install 'showtell[bulk]'")
    assert not Path("out").exists()


def test_a_cluster_that_cannot_be_reached_is_told_of(monkeypatch):
    """With RAY_ADDRESS, no other one is started in its place: it would caption a cluster's worth on one machine."""
    ray = pytest.importorskip("ray")
    tried = []

    def refuse(address, **options):
        tried.append(address)
        raise ConnectionError("Nobody\nis there.")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ShowtellError, match=r"No cluster can be reached or started: is there\. Try 'ray status'"):
        workers_of_cluster(None, 1)
    assert tried == ["auto"]
