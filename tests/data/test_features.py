"""The feature cache's file format: what it keeps, what it refuses, what a kill leaves."""

import json
import os
import shutil
import tracemalloc
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.data.features.cache import FeatureCache, megabytes, part_name
from showtell.data.features.writer import CacheWriter
from showtell.errors import DataError

CELLS, WIDTH = 4, 6


def writer(folder: Path, ids: str = "abc", fingerprint: str = "lite-1") -> CacheWriter:
    return CacheWriter(folder, fingerprint, CELLS, WIDTH, {image_id: f"{image_id}-stamp" for image_id in ids})


def features(ids: str) -> np.ndarray:
    """Different for every image, exact in half precision."""
    ramp = np.arange(CELLS * WIDTH, dtype=np.float32).reshape(CELLS, WIDTH)
    return np.stack([ramp + 100 * (ord(image_id) - ord("a")) for image_id in ids])


def build(folder: Path, ids: str = "abc") -> FeatureCache:
    with writer(folder, ids) as cache:
        cache.write(list(ids), features(ids))
    return FeatureCache.open(folder)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    cache = build(tmp_path)
    assert cache.shape == (3, CELLS, WIDTH)
    assert cache.fingerprint == "lite-1"
    assert cache["b"].dtype == np.float16
    assert np.array_equal(cache["b"], features("b")[0])
    assert np.array_equal(cache.rows(["c", "a", "c"]), features("cac"))
    assert "a" in cache
    assert "z" not in cache
    assert len(cache) == 3


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """A cache of MS-COCO is larger than the memory: 15 GB, of which 14 lie in a hole here."""
    build(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    row_bytes = CELLS * WIDTH * 2
    many = 10**5
    index["images"] += [f"hole {i}" for i in range(many)]
    index["stamps"] += [""] * many
    (tmp_path / "index.json").write_text(json.dumps({**index, "width": WIDTH * 3000}))
    (tmp_path / "done.u8").write_bytes(bytes([1]) * (many + 3))
    os.truncate(tmp_path / "features.f16", (many + 3) * row_bytes * 3000)
    tracemalloc.start()
    cache = FeatureCache.open(tmp_path)
    assert not cache.rows([f"hole {i}" for i in range(0, many, many // 100)]).any()
    assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
    tracemalloc.stop()


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"z is not in the feature cache .* Finish the cache with 'showtell features'"):
        build(tmp_path).rows(["a", "z"])


def test_unfinished_rows_are_not_served(tmp_path: Path) -> None:
    """The zeros of a row that was never written look like features."""
    with writer(tmp_path) as cache:
        cache.write(["a"], features("a"))
    with pytest.raises(DataError, match="b is not in the feature cache"):
        FeatureCache.open(tmp_path)["b"]


def test_a_row_is_to_do_until_it_is_on_the_disk(tmp_path: Path) -> None:
    """Killed between writing and marking, the row is computed again; nothing half-written counts."""
    killed = writer(tmp_path)
    killed.write(["a", "b"], features("ab"))  # and never closed
    assert writer(tmp_path).to_do == ["a", "b", "c"]
    killed.sync()
    assert writer(tmp_path).to_do == ["c"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from("abcdefgh")), min_size=1, max_size=5))
def test_any_order_of_sessions_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[set[str]]
) -> None:
    """Images are added in any portions, some of them asked for again."""
    folder = tmp_path_factory.mktemp("cache")
    for asked in sessions:
        with writer(folder, "".join(sorted(asked))) as cache:
            for image_id in list(cache.to_do):
                cache.write([image_id], features(image_id))
    cache = FeatureCache.open(folder) if set().union(*sessions) else None
    for image_id in set().union(*sessions):
        assert cache is not None
        assert np.array_equal(cache[image_id], features(image_id)[0])


def test_unreadable_images_are_listed_with_their_reason(tmp_path: Path) -> None:
    with writer(tmp_path) as cache:
        cache.write(["a", "c"], features("ac"))
        cache.leave_out("b", "b.jpg is cut off.")
    assert writer(tmp_path).to_do == []
    cache = FeatureCache.open(tmp_path)
    assert cache.unreadable == {"b": "b.jpg is cut off."}
    assert "b" not in cache
    with pytest.raises(DataError, match=r"b is not in the feature cache .*: b\.jpg is cut off\."):
        cache["b"]


def test_another_encoder_is_refused_and_both_are_named(tmp_path: Path) -> None:
    build(tmp_path)
    expected = "was built by lite-1, but the encoder is lite-2. Delete that folder or choose another."
    with pytest.raises(DataError, match=expected):
        FeatureCache.open(tmp_path, "lite-2")
    with pytest.raises(DataError, match=expected):
        writer(tmp_path, fingerprint="lite-2")
    assert len(FeatureCache.open(tmp_path, "lite-1")) == 3


def test_an_image_that_changed_is_refused(tmp_path: Path) -> None:
    """The same name in another data set is another photo."""
    build(tmp_path)
    with pytest.raises(DataError, match=r"b is not the image that the feature cache .* was built from"):
        CacheWriter(tmp_path, "lite-1", CELLS, WIDTH, {"b": "another stamp"})


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 100))
    with pytest.raises(DataError, match=r"needs 0 MB more, but its disk has 0 MB free\. Free some space or choose"):
        writer(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert megabytes(878_080_000) == "878 MB"


def test_a_disk_that_fills_up_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, values: bytes) -> int:
        raise OSError(28, "No space left on device")

    cache = writer(tmp_path)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(DataError, match=r"can't be written: No space left on device\. Free some space and run the"):
        cache.write(["a"], features("a"))


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_numbers_that_half_precision_lacks_are_refused(tmp_path: Path, value: float) -> None:
    """An infinity in the cache would end a training in NaN an hour later."""
    with (
        writer(tmp_path) as cache,
        pytest.raises(DataError, match="features of a do not fit into half precision"),
    ):
        cache.write(["a"], np.full((1, CELLS, WIDTH), value))


def test_a_folder_without_a_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no feature cache in .* Build one with 'showtell features'"):
        FeatureCache.open(tmp_path)


@pytest.mark.parametrize("file", ["features.f16", "done.u8"])
def test_a_cut_off_file_is_refused(tmp_path: Path, file: str) -> None:
    build(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"is cut off\. Delete it and build it again"):
        FeatureCache.open(tmp_path)


def test_a_damaged_or_later_index_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    index = tmp_path / "index.json"
    found = json.loads(index.read_text())
    index.write_text(json.dumps({**found, "format_version": 9}))
    with pytest.raises(DataError, match="has format version 9, but this version of showtell reads 1"):
        FeatureCache.open(tmp_path)
    index.write_text("{")
    with pytest.raises(DataError, match=r"index\.json is damaged: .* Delete the folder and build it again"):
        FeatureCache.open(tmp_path)


def test_marks_without_an_index_count_for_nothing(tmp_path: Path) -> None:
    """A new cache in the folder of a deleted one must not take its rows for done."""
    build(tmp_path)
    (tmp_path / "index.json").unlink()
    assert writer(tmp_path, "xyz").to_do == ["x", "y", "z"]
    with pytest.raises(DataError, match="x is not in"):
        FeatureCache.open(tmp_path)["x"]


# ---------------------------------------------------------------------------------------------------- parts


def build_part(folder: Path, part: int, parts: int, ids: str) -> list[str]:
    """What that builder had to do."""
    stamps = {image_id: f"{image_id}-stamp" for image_id in ids}
    with CacheWriter(folder, "lite-1", CELLS, WIDTH, stamps, part_name(part, parts)) as cache:
        to_do = cache.to_do
        if to_do:
            cache.write(to_do, features("".join(to_do)))
    return to_do


def test_parts_read_as_one_cache(tmp_path: Path) -> None:
    assert build_part(tmp_path, 2, 2, "defg") == ["d", "e", "f", "g"]
    assert build_part(tmp_path, 1, 2, "abc") == ["a", "b", "c"]
    cache = FeatureCache.open(tmp_path, "lite-1")
    assert cache.shape == (7, CELLS, WIDTH)
    assert np.array_equal(cache.rows(list("gacdb")), features("gacdb"))


def test_what_another_part_holds_is_not_done_again(tmp_path: Path) -> None:
    """Two builders, then three, then one with new images: each image is computed once."""
    with writer(tmp_path, "ab") as whole:
        whole.write(["a"], features("a"))
        whole.leave_out("b", "b.jpg is cut off.")
    assert build_part(tmp_path, 1, 2, "abc") == ["c"]
    assert build_part(tmp_path, 2, 3, "abcd") == ["d"]
    assert writer(tmp_path, "abcde").to_do == ["e"]
    cache = FeatureCache.open(tmp_path)
    assert len(cache) == 3
    assert cache.unreadable == {"b": "b.jpg is cut off."}
    assert np.array_equal(cache.rows(list("dca")), features("dca"))


def test_a_part_that_is_unfinished_goes_on_where_it_was(tmp_path: Path) -> None:
    build_part(tmp_path, 1, 2, "ab")
    stamps = {image_id: f"{image_id}-stamp" for image_id in "cd"}
    with CacheWriter(tmp_path, "lite-1", CELLS, WIDTH, stamps, part_name(2, 2)) as killed:
        killed.write(["c"], features("c"))
    assert sorted(FeatureCache.open(tmp_path)._row) == ["a", "b", "c"]
    assert build_part(tmp_path, 2, 2, "cd") == ["d"]
    assert np.array_equal(FeatureCache.open(tmp_path).rows(list("dcba")), features("dcba"))


def test_parts_of_different_encoders_or_images_are_refused(tmp_path: Path) -> None:
    build_part(tmp_path, 1, 2, "ab")
    with pytest.raises(DataError, match="part-1-of-2 was built by lite-1, but the encoder is lite-2"):
        CacheWriter(tmp_path, "lite-2", CELLS, WIDTH, {"c": "c-stamp"}, part_name(2, 2))
    with pytest.raises(DataError, match=r"a is not the image that .* was built from"):
        CacheWriter(tmp_path, "lite-1", CELLS, WIDTH, {"a": "another"}, part_name(2, 2))
    other = tmp_path / part_name(2, 2)
    writer(other, fingerprint="lite-2").sync()
    with pytest.raises(DataError, match="part-2-of-2 was built by lite-2, but the encoder is lite-1"):
        FeatureCache.open(tmp_path)


def test_threads_may_share_a_cache(tmp_path: Path) -> None:
    """One place in a file for all threads would mix up their rows."""
    cache = build(tmp_path, "abcdefgh")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(cache.__getitem__, "abcdefgh" * 200))
    assert np.array_equal(np.stack(found), features("abcdefgh" * 200))
