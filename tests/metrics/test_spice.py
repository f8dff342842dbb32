"""SPICE is another's Java program: what is sent to it, what is read from it, and what is said where it is not."""

import sys
from pathlib import Path

import numpy as np
import pytest

from showtell.errors import DataError, MissingExtraError, ShowtellError
from showtell.metrics import score, spice
from showtell.metrics.official.spice import MODELS

# Stands for `java -jar ... captions.json -out scores.json ...`: scores each caption by its number of words.
JAVA = """#!{python}
import json, sys
asked, answered = sys.argv[4], sys.argv[sys.argv.index("-out") + 1]
assert sys.argv[1:4] == ["-jar", "-Xmx8G", "{program}"], sys.argv
rows = json.load(open(asked))
scores = [{{"image_id": r["image_id"], "scores": {{"All": {{"f": len(r["test"].split()) / 10}}}}}} for r in rows]
{extra}
json.dump(scores[::-1], open(answered, "w"))
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A java, a package and its models; returns the program's folder."""
    folder = tmp_path / "site" / "pycocoevalcap" / "spice"
    (folder / "lib").mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    for file in ("spice-1.0.jar", *(f"lib/{name}" for name in MODELS)):
        (folder / file).touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    put_java(folder)
    return folder


def put_java(folder: Path, extra: str = "") -> None:
    java = folder.parents[2] / "bin" / "java"
    java.write_text(JAVA.format(python=sys.executable, program=folder / "spice-1.0.jar", extra=extra))
    java.chmod(0o755)


def test_scores_by_image_whatever_order_they_come_in(tools: Path) -> None:
    corpus, per_image = spice(["a dog", "two cars run"], [["x"], ["y", "z"]])
    np.testing.assert_allclose(per_image, [0.2, 0.3])
    assert corpus == pytest.approx(0.25)


def test_report_holds_it_only_when_asked(tools: Path) -> None:
    captions = {"1": "A dog!"}, {"1": ["a dog"]}
    assert "SPICE" not in score(*captions, metrics=["BLEU"]).scores
    report = score(*captions, metrics=["BLEU", "SPICE"])
    assert report.scores["SPICE"] == pytest.approx(0.2)  # "A dog!" is two tokens
    assert report.missing == {}


def missing(told: str, kind: type[ShowtellError] = DataError) -> None:
    """`spice` says so, and a report holds the other metrics and the reason."""
    with pytest.raises(kind, match=told):
        spice(["a dog"], [["a dog"]])
    report = score({"1": "a dog"}, {"1": ["a dog"]}, metrics=["ROUGE_L", "SPICE"])
    assert report.scores == {"ROUGE_L": pytest.approx(1)}
    assert list(report.missing) == ["SPICE"]


def test_no_java(tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing("SPICE needs Java, which is not on PATH")


def test_no_package(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing(r"SPICE needs packages.*showtell\[meteor\]", MissingExtraError)


def test_no_models(tools: Path) -> None:
    (tools / "lib" / MODELS[1]).unlink()
    missing(r"needs stanford-corenlp-3\.6\.0-models\.jar, which is not in .*lib\. pycocoevalcap fetches it: python -c")


def test_the_program_fails(tools: Path) -> None:
    put_java(tools, "print('out of memory', file=sys.stderr); sys.exit(3)")
    missing("failed with exit code 3: out of memory")


def test_the_program_answers_nothing(tools: Path) -> None:
    put_java(tools, "sys.exit(0)")
    missing("failed with exit code 0: it said nothing")


@pytest.mark.parametrize("extra", ["scores = scores[1:]", "scores = [{}]", "scores[0]['scores']['All']['f'] = None"])
def test_the_program_answers_something_else(tools: Path, extra: str) -> None:
    put_java(tools, extra)
    missing("did not answer as expected")


def test_an_image_without_a_score(tools: Path) -> None:
    put_java(tools, "scores[0]['scores']['All']['f'] = float('nan')")
    missing("no score for 1 of 1 images", ShowtellError)
