"""METEOR on small tables that the test makes; test_official_scores.py holds it against the Java program."""

import importlib.metadata
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import DataError, MissingExtraError
from showtell.files import cache_folder
from showtell.metrics.official.meteor import Match, align, meteor, normalise
from showtell.metrics.official.meteor_data import (
    MeteorData,
    build_index,
    load_meteor_data,
    paraphrase_arrays,
)
from tests.fake_pycocoevalcap import PAIRS, write_package

pytest.importorskip("Stemmer")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package of the real one's name and layout."""
    return write_package(tmp_path_factory.mktemp("site"))


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(installed: None) -> MeteorData:
    return load_meteor_data()


def found_phrases(data: MeteorData, sentence: str) -> set[str]:
    words = sentence.split()
    return {" ".join(words[place : place + size]) for place, size, _ in data.phrases([words])[0]}


def test_the_index_holds_every_pair_of_the_table_in_its_order(data: MeteorData) -> None:
    phrases = sorted({phrase for pair in PAIRS for phrase in pair})
    rows = data.phrases([phrase.split() for phrase in phrases])
    node = {phrase: max(row, key=lambda p: (-p[0], p[1]))[2] for phrase, row in zip(phrases, rows, strict=True)}
    assert len(set(node.values())) == len(phrases)
    name = {number: phrase for phrase, number in node.items()}
    read = data.paraphrases(node.values())
    for phrase in phrases:
        assert [name[n] for n in read.get(node[phrase], [])] == [b for a, b in PAIRS if a == phrase]


def test_phrases_end_at_the_sentence(data: MeteorData) -> None:
    """All sentences are looked up in one array: "on top" + "of" of the next sentence is no phrase."""
    assert found_phrases(data, "dog on top zebra") >= {"dog", "on", "on top"}
    assert data.phrases([["on", "top"], ["of", "dog"]])[0] == data.phrases([["on", "top"]])[0]
    assert data.phrases([]) == []
    assert data.phrases([[], ["zebra"]]) == [[], []]
    assert data.paraphrases([]) == {}


def test_base_forms(data: MeteorData) -> None:
    assert data.synonym_sets("men") == data.synonym_sets("man") == {"1", "2"}
    assert data.synonym_sets("running") == {"7"}  # by the list of exceptions
    assert data.synonym_sets("sprints") == data.synonym_sets("sprinted") == {"7", "8"}  # by the rules
    assert data.synonym_sets("buss") == data.synonym_sets("zebra") == frozenset()


def test_each_kind_of_match(data: MeteorData) -> None:
    def one(candidate: str, reference: str) -> float:
        return meteor([candidate], [[reference]], data)[0]

    assert one("zebra", "zebra") == 1
    assert one("walks", "walking") == pytest.approx(0.6)
    assert one("fellow", "man") == pytest.approx(0.8)
    assert one("hound", "dog") == one("dog", "hound") == pytest.approx(0.6)
    # The table has this pair both ways: two matches of the same words, so none is without rival, and a path
    # that leaves a word out has a chunk less. The program does so, too.
    assert one("puppy", "dog") == 0
    assert one("zebra", "dog") == one("", "dog") == one("dog", "") == one("", "") == 0


def test_a_perfect_match_has_no_penalty_in_the_corpus_either(data: MeteorData) -> None:
    candidates, references = ["a dog runs", "zebra of men"], [["a dog runs"], ["zebra of men"]]
    corpus, per_image = meteor(candidates, references, data)
    assert corpus == 1
    assert per_image.tolist() == [1, 1]


def test_the_best_reference_counts_and_the_corpus_adds_matches(data: MeteorData) -> None:
    corpus, per_image = meteor(["a dog", "zebra x y"], [["cat", "a dog"], ["zebra"]], data)
    assert per_image[0] == 1
    assert per_image[1] < corpus < 1
    assert corpus != pytest.approx(per_image.mean())


def test_no_images_and_wrong_arguments(data: MeteorData) -> None:
    assert meteor([], [], data)[0] == 0
    with pytest.raises(ValueError, match="1 candidates, but 0"):
        meteor(["a"], [], data)
    with pytest.raises(ValueError, match="no references"):
        meteor(["a"], [[]], data)


def test_ties_go_to_the_reference_word_that_comes_later() -> None:
    """The program counts a chunk when it closes, so a path whose chunk is still open goes first."""
    found = [[Match(0, 1, 0, 1, 0)], [], [Match(2, 1, 0, 1, 0)]]
    assert [m.place for m in align(found, 3)] == [2]


def test_a_match_of_one_word_that_is_not_exact_covers_nothing() -> None:
    """Covered words are whole numbers in the program, so the stem match needs a chunk to join."""
    apart = [[Match(0, 1, 5, 1, 1), Match(0, 1, 5, 1, 2)], [Match(1, 1, 0, 1, 0)]]
    assert [m.kind for m in align(apart, 2)] == [0]
    joined = [[Match(0, 1, 0, 1, 1), Match(0, 1, 0, 1, 2)], [Match(1, 1, 1, 1, 0)]]
    assert [m.kind for m in align(joined, 2)] == [1, 0]


def test_a_match_without_rival_is_always_taken() -> None:
    assert [m.kind for m in align([[Match(0, 1, 5, 1, 1)], [Match(1, 1, 0, 1, 0)]], 2)] == [1, 0]


matches = st.builds(
    Match, st.integers(0, 5), st.integers(1, 3), st.integers(0, 5), st.integers(1, 3), st.integers(0, 3)
)


@given(st.lists(matches, max_size=12))
def test_no_word_is_matched_twice(possible: list[Match]) -> None:
    found: list[list[Match]] = [[] for _ in range(6)]
    for m in possible:
        if m.place + m.words <= 6:
            found[m.place].append(m)
    chosen = align(found, 6)
    assert set(chosen) <= set(possible)
    ours = [i for m in chosen for i in range(m.candidate_place, m.candidate_place + m.candidate_words)]
    theirs = [j for m in chosen for j in range(m.place, m.place + m.words)]
    assert len(set(ours)) == len(ours)
    assert len(set(theirs)) == len(theirs)
    assert theirs == sorted(theirs)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a dog runs", "a dog runs"),
        ("a man 's t-shirt", "a man ' s t shirt"),
        ("u.s. and/or p.m.", "us and / or pm"),
        ("it is 6:55 on k. street st.", "it is 6 : 55 on k. street st ."),
        ("1,000 -lrb- a,b -rrb- 22\u00a03/4 café", "1,000 -lrb- a , b -rrb- 22 3 / 4 café"),
        ("rock 'n' roll o'clock", "rock ' n ' roll o 'clock"),
        ("no. 5 pp. 3 ...", "no . 5 pp. 3 ..."),
    ],
)
def test_tokens_of_its_own(text: str, tokens: str) -> None:
    assert normalise(text) == tokens


def test_index_is_built_once_with_progress(installed: None) -> None:
    shares: list[float] = []
    load_meteor_data(progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [path.name for path in cache_folder().iterdir()] == ["meteor-1.5-1"]
    load_meteor_data(progress=lambda share: pytest.fail("built twice"))


def build(package: Path, folder: Path) -> None:
    sys.path.insert(0, str(package))
    build_index(folder, lambda share: None)


def test_two_processes_build_at_once(package: Path, tmp_path: Path) -> None:
    """Half an index, or a crash of the slower one, must not come of it."""
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "cache" / "index"
    processes = [context.Process(target=build, args=(package, folder)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in folder.parent.iterdir()] == ["index"]
    assert meteor(["hound"], [["dog"]], MeteorData(folder))[0] == pytest.approx(0.6)


def test_an_interrupted_build_leaves_nothing(installed: None) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_meteor_data(progress=stop)
    assert not list(cache_folder().glob("*"))


@pytest.mark.parametrize(
    ("version", "error", "told"),
    [
        (None, MissingExtraError, r"showtell\[meteor\]"),
        ("3.0.0", DataError, r"PyStemmer 3\.0\.0 .* 'PyStemmer==2\.2\.\*'"),
    ],
)
def test_another_stemmer_is_refused_before_the_index_is_built(
    monkeypatch: pytest.MonkeyPatch, version: str | None, error: type[Exception], told: str
) -> None:
    """A newer stemmer gives other scores, and half a minute of work is for nothing without any."""

    def installed_version(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("importlib.metadata.version", installed_version)
    monkeypatch.setattr(
        sys.modules["showtell.metrics.official.meteor"], "load_meteor_data", lambda **_: pytest.fail("loaded")
    )
    with pytest.raises(error, match=told):
        meteor(["a dog"], [["a dog"]])


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"METEOR needs packages.*showtell\[meteor\]"):
        load_meteor_data(tmp_path / "index")


def test_package_without_its_jar(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pycocoevalcap").mkdir()
    (tmp_path / "pycocoevalcap" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    with pytest.raises(DataError, match=r"can't be read from .*meteor-1\.5\.jar"):
        load_meteor_data(tmp_path / "index")


def test_too_many_words_for_the_index() -> None:
    lines = (line for n in range(66_000) for line in ("0.5\n", f"w{n}\n", "x\n"))
    with pytest.raises(DataError, match="more than 65,535 words"):
        paraphrase_arrays(lines, lambda share: None)


def test_arrays_of_an_empty_table() -> None:
    arrays, words = paraphrase_arrays(iter([]), lambda share: None)
    assert words == []
    assert arrays["targets"].dtype == np.uint32
