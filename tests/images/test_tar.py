"""Tar shards and Parquet tables as inputs: what is in them, what it is called, and what happens to damaged ones."""

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from showtell.cli import main
from showtell.errors import DataError, ImageError
from showtell.images.sources import find_images
from showtell.images.tables import read_rows, table_rows
from tests.fake_model import png, save_fake_model, use_fake_engine

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLOURS = ("red", "lime", "blue")
SAID = ("a red picture of nothing", "a green picture of nothing", "a blue picture of nothing")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_fake_engine(monkeypatch)
    save_fake_model(tmp_path / "m")
    return tmp_path


def run(capsys, *arguments) -> tuple[int, list[list[str]], list[str]]:
    """Exit code, (name, caption) of each image, and the lines of stderr."""
    code = main(["caption", "-m", "m", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, [line.split("\t") for line in out.splitlines()], error.splitlines()


def write_shard(path: str, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_table(path: str, **columns) -> None:
    parquet.write_table(pa.table(columns), path, row_group_size=4)


def pictures(count: int) -> list[bytes]:
    return [png(COLOURS[number % 3]) for number in range(count)]


# Shards


def test_images_of_a_shard_go_by_its_name_and_theirs(place, capsys):
    """As WebDataset has them: other files of a sample lie beside its image, folders too; in the shard's order."""
    members = {"b/2.png": png("blue"), "b/2.json": b"{}", "./1.PNG": png("red"), "._1.png": b"macOS", "cls.txt": b"x"}
    write_shard("s.tar", members)
    write_shard("t.tar", {"1.png": png("lime")})
    assert run(capsys, "s.tar", "t.tar")[:2] == (
        0,
        [["s.tar/b/2.png", SAID[2]], ["s.tar/1.PNG", SAID[0]], ["t.tar/1.png", SAID[1]]],
    )
    assert [name for name, _ in run(capsys, "*.tar")[1]] == ["s.tar/b/2.png", "s.tar/1.PNG", "t.tar/1.png"]


def test_a_folder_is_of_photos(place, capsys):
    """An output `captions.parquet` that lies among the photos is none of them."""
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(png("red"))
    write_shard("photos/s.tar", {"1.png": png("lime")})
    write_table("photos/captions.parquet", image=["a.png"])
    assert run(capsys, "photos", "photos/*")[:2] == (0, [["photos/a.png", SAID[0]]])


def test_a_bad_member_is_named_and_the_others_go_on(place, capsys):
    write_shard("s.tar", {"1.png": png("red"), "2.png": b"nonsense", "3.png": png("blue")})
    code, found, error = run(capsys, "s.tar")
    assert (code, [name for name, _ in found]) == (1, ["s.tar/1.png", "s.tar/3.png"])
    assert error[0].startswith("showtell: s.tar/2.png is not an image")
    assert error[1] == "showtell: 2 captioned, 1 failed."


def test_a_shard_that_is_cut_off_gives_what_it_has(place, capsys):
    write_shard("s.tar", {"1.png": png("red"), "2.png": png("lime"), "3.png": png("blue")})
    Path("s.tar").write_bytes(Path("s.tar").read_bytes()[: 1024 + 512 + 20])
    code, found, error = run(capsys, "s.tar")
    assert (code, found) == (1, [["s.tar/1.png", SAID[0]]])
    assert any(line.startswith("showtell: s.tar") for line in error)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.tar", b"x" * 2000, "s.tar is damaged or not a tar file: "),
        (
            "s.tar.gz",
            gzip.compress(b"x" * 2000, mtime=0),
            "s.tar.gz is compressed. Unpack it; the tar file itself is read in",
        ),
        ("empty.tar", b"\0" * 10240, "empty.tar: no image in this shard. Images are known by their suffix"),
        ("s.parquet", b"x" * 2000, "s.parquet is not Parquet: "),
    ],
)
def test_a_container_that_is_none(place, capsys, name, content, message):
    Path(name).write_bytes(content)
    code, _, error = run(capsys, name)
    assert code == 1
    assert error[0].startswith(f"showtell: {message}")


def test_a_shard_that_went_away(place):
    """Between the listing and the reading."""
    write_shard("s.tar", {"1.png": png("red")})
    [image], _ = find_images(["s.tar"])
    Path("s.tar").write_bytes(Path("s.tar").read_bytes()[:520])
    with pytest.raises(ImageError, match=r"s\.tar/1\.png is cut off: its shard ends within it"):
        image.read()
    Path("s.tar").unlink()
    with pytest.raises(DataError, match=r"s\.tar can't be read: No such file"):
        image.read()


# Tables


def test_a_table_of_hugging_face(place, capsys):
    """A struct of bytes and path; rows go by the path."""
    rows = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(pictures(9))]
    write_table("t.parquet", image=rows, label=list(range(9)))
    code, found, _ = run(capsys, "t.parquet")
    assert code == 0
    assert found == [[f"t.parquet/{n}.png", SAID[n % 3]] for n in range(9)]


@pytest.mark.parametrize("paths", [[None] * 6, ["a.png"] * 6, ["a", "b", None, "c", "d", "e"]])
def test_rows_without_paths_of_their_own_go_by_number(place, capsys, paths):
    """Two rows of one name would be taken for one image, and the second would get no caption."""
    rows = [{"bytes": data, "path": path} for data, path in zip(pictures(6), paths, strict=True)]
    write_table("t.parquet", image=rows)
    assert run(capsys, "t.parquet")[1] == [[f"t.parquet/{n}", SAID[n % 3]] for n in range(6)]


def test_a_column_of_bytes(place, capsys):
    write_table("t.pq", caption=["x"] * 6, jpg=pictures(6))
    assert run(capsys, "t.pq")[1] == [[f"t.pq/{n}", SAID[n % 3]] for n in range(6)]


def test_rows_that_are_missing_or_damaged_are_named(place, capsys):
    data = pictures(6)
    write_table("t.parquet", image=[data[0], None, data[2], b"", b"nonsense", data[5]])
    code, found, error = run(capsys, "t.parquet")
    assert (code, [name for name, _ in found]) == (1, ["t.parquet/0", "t.parquet/2", "t.parquet/5"])
    assert error[:2] == [
        "showtell: t.parquet, row 1: the image is missing.",
        "showtell: t.parquet, row 3: the image is missing.",
    ]
    assert error[2].startswith("showtell: t.parquet/4 is not an image")


def test_which_column(place, capsys):
    data = pictures(3)
    write_table("two.parquet", source=data, target=data[::-1])
    code, _, error = run(capsys, "two.parquet")
    assert (code, error) == (
        2,
        ["showtell: two.parquet has 2 columns of image files. Choose one with --column: source, target."],
    )
    assert run(capsys, "two.parquet", "--column", "target")[1][0] == ["two.parquet/0", SAID[2]]
    code, _, error = run(capsys, "two.parquet", "--column", "x")
    assert (code, error) == (
        2,
        ["showtell: two.parquet has no column 'x' of image files. Choose from: source, target."],
    )
    write_table("usual.parquet", mask=data[::-1], image=data)
    assert run(capsys, "usual.parquet")[1][0] == ["usual.parquet/0", SAID[0]]
    write_table("none.parquet", n=[1])
    assert run(capsys, "none.parquet")[2][0] == (
        "showtell: none.parquet has no column of image files (bytes). Its columns are n (int64)."
    )
    write_table("empty.parquet", image=pa.array([], pa.binary()))
    assert run(capsys, "empty.parquet")[2][0] == "showtell: empty.parquet: this table has no rows."


@pytest.mark.parametrize("rows", [[0], [3, 4], [0, 5, 9], [8, 9], list(range(10)), []])
def test_only_the_rows_that_are_wanted_come(tmp_path, rows):
    """A resumed run skips what is done, across groups of rows."""
    path = str(tmp_path / "t.parquet")
    data = [bytes([n]) * 3 for n in range(10)]
    write_table(path, image=data)
    assert list(read_rows(path, "image", rows)) == [data[row] for row in rows]


def test_nothing_behind_the_last_wanted_row_is_read(tmp_path, monkeypatch):
    """A row group may weigh a gigabyte."""

    class Counting(io.BytesIO):
        bytes_read = 0

        def read(self, size=-1):
            found = super().read(size)
            self.bytes_read += len(found)
            return found

    path = tmp_path / "t.parquet"
    data = [np.random.default_rng(n).bytes(200_000) for n in range(64)]
    table = pa.table({"image": data})
    parquet.write_table(table, path, row_group_size=64, use_dictionary=False, write_batch_size=1, data_page_size=1)
    content = Counting(path.read_bytes())
    monkeypatch.setattr("showtell.images.tables.open_file", lambda name: content)
    assert list(read_rows("memory://t.parquet", "image", [1])) == [data[1]]
    assert content.bytes_read < 0.5 * path.stat().st_size


def test_a_table_that_is_damaged_behind_its_listing(tmp_path):
    """The rows before come; each of the others says why it does not."""
    path = tmp_path / "t.parquet"
    data = [bytes([n]) * 50 for n in range(10)]
    parquet.write_table(pa.table({"image": data}), path, row_group_size=4, compression="gzip", use_dictionary=False)
    column, names = table_rows(str(path), None)
    group = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = group.data_page_offset
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(content)
    found = list(read_rows(str(path), column, range(len(names))))
    assert found[:4] == data[:4]
    assert all(isinstance(each, ImageError) for each in found[4:])
    assert str(found[4]).startswith(f"Row 4: {path} is damaged: ")


def test_without_pyarrow(place, capsys, monkeypatch):
    write_table("t.parquet", image=pictures(1))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for arguments, what in ((["t.parquet"], "Reading"), (["x.png", "-o", "x.parquet"], "Writing")):
        code, _, error = run(capsys, *arguments)
        assert (code, error) == (
            2,
            [f"showtell: {what} Parquet needs packages that are not installed. Run: pip install 'showtell[tables]'"],
        )


# Parquet as an output


def test_captions_as_parquet(place, capsys):
    write_shard("s.tar", {f"{n}.png": data for n, data in enumerate(pictures(4))})
    assert run(capsys, "s.tar", "-o", "x.parquet", "-n", "2") == (0, [], [])
    table = parquet.read_table("x.parquet")
    assert table.schema.names == ["image", "caption", "log_prob", "confidence"]
    assert table["image"].to_pylist() == [f"s.tar/{n}.png" for n in range(4) for _ in range(2)]
    assert table["caption"].to_pylist()[::2] == [SAID[n % 3] for n in range(4)]
    assert all(-20 < value < 0 for value in table["log_prob"].to_pylist())
    made_with = json.loads(table.schema.metadata[b"showtell"])
    assert made_with["num"] == 2
    assert made_with["model"].startswith("fake ")
    assert sorted(path.name for path in place.iterdir()) == ["m", "s.tar", "x.parquet"], "something is left behind"


def test_parquet_in_groups_of_rows(place, capsys, monkeypatch):
    """However many captions there are, a few are in memory."""
    monkeypatch.setattr("showtell.results.outputs.ROW_GROUP", 3)
    write_shard("s.tar", {f"{n}.png": data for n, data in enumerate(pictures(7))})
    run(capsys, "s.tar", "-o", "x.parquet")
    assert parquet.ParquetFile("x.parquet").metadata.num_row_groups == 3
    assert parquet.read_table("x.parquet")["image"].to_pylist() == [f"s.tar/{n}.png" for n in range(7)]


def test_parquet_needs_a_file(place, capsys):
    code, _, error = run(capsys, "x.png", "-f", "parquet")
    assert (code, error) == (2, ["showtell: The parquet format is not written to stdout. Add -o FILE.parquet."])


# Shards as an output


def test_a_shard_of_images_and_captions(place, capsys):
    """What WebDataset reads: a key without dots, and no two samples of one key; images as they were."""
    data = {"a.b.png": png("red"), "x/1.png": png("lime"), "x/1.PNG": png("blue")}
    write_shard("s.tar", data)
    assert run(capsys, "s.tar", "-o", "x.tar", "-n", "2") == (0, [], [])
    with tarfile.open("x.tar") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}
    keys = {"a_b": "a.b.png", "x/1": "x/1.png", "s_tar/x/1_PNG": "x/1.PNG"}
    assert list(found) == [f"{key}.{kind}" for key in keys for kind in ("png", "txt", "json")]
    for key, name in keys.items():
        assert found[f"{key}.png"] == data[name]
        values = json.loads(found[f"{key}.json"])
        assert values["image"] == f"s.tar/{name}"
        assert found[f"{key}.txt"].decode().split("\n") == values["captions"]
        assert len(values["captions"]) == len(values["log_probs"]) == 2
    assert [name for name, _ in run(capsys, "x.tar")[1]] == [
        "x.tar/a_b.png",
        "x.tar/x/1.png",
        "x.tar/s_tar/x/1_PNG.png",
    ]


def test_a_shard_of_a_table_and_of_files(place, capsys):
    """A table's rows can be read once only, and their bytes are wanted twice; a name may leave its folder."""
    write_table("t.parquet", image=pictures(5))
    Path("x.jpg").write_bytes(png("blue"))
    assert run(capsys, "t.parquet", place / "x.jpg", "m/../x.jpg", "-o", "x.tar")[0] == 0
    with tarfile.open("x.tar") as tar:
        images = [member for member in tar if member.name.endswith(".jpg")]
        assert [tar.extractfile(member).read() for member in images] == [*pictures(5), png("blue"), png("blue")]
        assert [member.name for member in images[:2]] == ["t_parquet/0.jpg", "t_parquet/1.jpg"]
        assert images[5].name == f"{str(place).strip('/')}/x.jpg".replace(".", "_").replace("_jpg", ".jpg")
        assert images[6].name == "m/_/x.jpg"


@pytest.mark.parametrize("values", [b"[]", b"{}", b"{", b'{"image": "x", "captions": ["a", "b"], "log_probs": [0, 0]}'])
def test_another_programs_shard_is_not_gone_on_with(place, capsys, values):
    write_shard("x.tar", {"1.jpg": b"", "1.json": values})
    before = Path("x.tar").read_bytes()
    Path("x.png").write_bytes(png("red"))
    code, _, error = run(capsys, "x.png", "-o", "x.tar", "--resume")
    assert (code, error) == (
        2,
        [
            "showtell: x.tar can't be continued: showtell did not write its 1.json with 1 captions. "
            "Choose another -o FILE, or leave out --resume."
        ],
    )
    assert Path("x.tar").read_bytes() == before
