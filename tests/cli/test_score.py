"""`showtell score`: the scores, what could not be had, what did not match, and the line that says how."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from showtell.cli import main
from showtell.errors import MissingExtraError
from showtell.metrics import METRICS, score
from showtell.metrics.official.meteor import METEOR
from tests.fake_pycocoevalcap import write_package

PEOPLE = {"1": ["A dog runs.", "a dog is running"], "2": ["two red cars"], "3": ["a house"]}
SAID = {"1": "a dog runs", "2": "two cars with a", "x.jpg": "a man"}
DATA = os.environ.get("SHOWTELL_TEST_DATA")
FAST = ("--metric", "BLEU", "--metric", "rouge-l", "--metric", "cider")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`pred.json` and `ref.json`; METEOR is not installed."""
    monkeypatch.chdir(tmp_path)
    put("pred.json", [{"image_id": int(i) if i.isdigit() else i, "caption": c} for i, c in SAID.items()])
    put("ref.json", PEOPLE)

    def no_meteor(progress: object) -> None:
        raise MissingExtraError("METEOR", "meteor")

    monkeypatch.setitem(METRICS, "METEOR", replace(METEOR, prepare=no_meteor))
    return tmp_path


def put(name: str, content: object) -> None:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["score", *arguments])
    out, error = capsys.readouterr()
    return code, out, error


def test_table_of_scores(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _error = run(capsys, "pred.json", "ref.json")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    expected = score(SAID, PEOPLE)
    for name in ("BLEU-1", "BLEU-4", "ROUGE_L", "CIDEr"):
        assert [name, f"{100 * expected.scores[name]:.1f}"] in lines
    assert ["METEOR", "missing"] in lines
    assert "METEOR is missing: METEOR needs packages that are not installed. Run: pip install 'showtell[meteor]'" in out
    assert "2 images, 3 references" in out


def test_ids_that_do_not_match_are_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = run(capsys, "pred.json", "ref.json")[2]
    assert "1 images in REF have no caption in PRED; they are not scored: 3\n" in error
    assert "1 images in PRED have no references; they are not scored: x.jpg\n" in error
    put("ref.json", PEOPLE | {f"more {n}": ["a"] for n in range(6)})
    assert (
        "7 images in REF have no caption in PRED; they are not scored: 3, more 0, more 1, more 2, more 3 and 2 more"
        in (run(capsys, "pred.json", "ref.json")[2])
    )


def test_json_holds_all_digits_and_ids(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "pred.json", "ref.json", "--json")
    found = json.loads(out)
    expected = score(SAID, PEOPLE)
    assert (code, error) == (0, "")
    assert found["scores"] == expected.scores
    assert found["missing"].keys() == {"METEOR"}
    assert found["without_prediction"] == ["3"]
    assert found["without_references"] == ["x.jpg"]
    assert (found["images"], found["references"], found["spare_captions"]) == (2, 3, 0)
    assert found["captions"]["system"]["dangling"] == 0.5
    assert found["captions"]["people"]["dangling"] == 0


@pytest.mark.parametrize("name", ["images.csv", "images.jsonl"])
def test_scores_of_each_image(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    put("pred.json", SAID | {"2": 'two "cars", 1 line\nbreak'})
    assert run(capsys, "pred.json", "ref.json", "--per-image", name)[0] == 0
    with Path(name).open(encoding="utf-8", newline="") as file:
        rows = [json.loads(line) for line in file] if name.endswith("jsonl") else list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == ["1", "2"]
    assert rows[1]["caption"] == 'two "cars", 1 line\nbreak'
    expected = score({"1": SAID["1"], "2": rows[1]["caption"]}, PEOPLE)
    for metric, values in expected.per_image.items():
        assert [float(row[metric]) for row in rows] == list(values)


def test_per_image_file_is_checked_before_the_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "pred.json", "ref.json", "--per-image", "images.xlsx")
    assert (code, out) == (2, "")
    assert "images.xlsx: --per-image writes CSV or JSON lines. Name a .csv or .jsonl file." in error
    code, _, error = run(capsys, "none.json", "ref.json", "--per-image", "no/images.csv")
    assert (code, "can't be written" in error) == (2, True)


def test_signature(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has what another needs to get the same numbers; the decoding is in what `showtell evaluate` wrote."""
    put(
        "pred.json",
        {
            "search": {"beam": 5, "max_words": 20},
            "predictions": [{"image_id": i, "caption": c} for i, c in SAID.items()],
        },
    )
    last = run(capsys, "pred.json", "ref.json")[1].splitlines()[-1]
    assert last.startswith(
        "metrics:BLEU,ROUGE-L,CIDEr-D|images:2|nrefs:1-2|lang:en|tok:ptb|case:lower|decode:beam=5,max_words=20|version:showtell-"
    )
    last = run(capsys, "pred.json", "ref.json", "--order-independent", "--metric", "CIDEr")[1].splitlines()[-1]
    assert last.startswith("metrics:CIDEr-D|images:2|nrefs:1-2|lang:en|tok:ptb-each-alone|")


def test_order_independent_tokens(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Officially "K." before a caption that begins with "The" loses its full stop; alone it keeps it."""
    put("pred.json", {"1": "a sign that reads K.", "2": "The end"})
    put("ref.json", {"1": ["a sign that reads k."], "2": ["the end"]})
    official, alone = (
        json.loads(run(capsys, "pred.json", "ref.json", *FAST, "--json", *more)[1])["scores"]["BLEU-1"]
        for more in ((), ("--order-independent",))
    )
    assert alone == pytest.approx(1, abs=1e-8)
    assert official < 0.9


def test_share_of_copied_captions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("train.csv", "image,caption,split\na,A dog runs!,train\nb,two cars with a,test\n")
    out = run(capsys, "pred.json", "ref.json", *FAST, "--train", "train.csv")[1]
    row = next(line for line in out.splitlines() if line.startswith("copied"))
    assert row.split()[-4:] == ["50.0", "%", "50.0", "%"]
    put("train.csv", "image,caption\na,A dog runs!\nb,two cars with a\n")  # no splits: all of it
    found = json.loads(run(capsys, "pred.json", "ref.json", *FAST, "--train", "train.csv", "--json")[1])
    assert found["captions"]["system"]["copied"] == 1
    assert "copied" not in run(capsys, "pred.json", "ref.json", *FAST)[1]


def test_spice_only_when_asked_for(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "SPICE" not in run(capsys, "pred.json", "ref.json")[1]
    monkeypatch.setenv("PATH", "")
    code, out, _ = run(capsys, "pred.json", "ref.json", "--spice")
    assert code == 1
    assert "SPICE is missing: SPICE needs Java, which is not on PATH." in out
    assert "CIDEr" in out


def test_a_metric_that_is_named_must_be_had(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that asks for METEOR must see that it has none; one that asks for nothing gets what there is."""
    assert run(capsys, "pred.json", "ref.json", "--metric", "meteor")[0] == 1
    assert run(capsys, "pred.json", "ref.json", "--metric", "ROUGE_L")[0] == 0
    code, _, error = run(capsys, "pred.json", "ref.json", "--metric", "BLUE")
    assert code == 2
    assert "There is no metric BLUE. Choose from: BLEU, METEOR, ROUGE_L, CIDEr, SPICE, sacreBLEU, chrF." in error


def test_building_meteors_index_is_told_once(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute of silence looks like a hang; stdout stays what a script expects."""

    def build(progress: Callable[[float], None]) -> None:
        for fraction in (0.1, 0.5, 1.0):
            progress(fraction)

    ones = replace(METEOR, prepare=build, statistics=lambda candidates, _: np.ones((len(candidates), 7)))
    monkeypatch.setitem(METRICS, "METEOR", ones)
    code, out, error = run(capsys, "pred.json", "ref.json", "--metric", "METEOR", "--json")
    assert code == 0
    assert json.loads(out)["missing"] == {}
    assert error == "showtell: building METEOR's index in the cache folder; this happens only once.\n"


def test_several_captions_an_image(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("pred.csv", "image,caption,log_prob\n1,a dog runs,-1\n1,dog,-2\n2,two cars,-3\n")
    assert (
        "pred.csv has 1 more captions of the same images; only the first of each counts."
        in (run(capsys, "pred.csv", "ref.json")[2])
    )


def test_nothing_matches(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("pred.json", {"y": "a dog"})
    code, _, error = run(capsys, "pred.json", "ref.json")
    assert code == 1
    assert "None of the 1 predicted images is among the 3 references." in error


def test_empty_list_of_references(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("ref.json", PEOPLE | {"2": []})
    code, out, error = run(capsys, "pred.json", "ref.json")
    assert (code, "1 images, 2 references" in out) == (0, True)
    assert "2 images in PRED have no references; they are not scored: 2, x.jpg" in error


def test_what_was_left_out_of_the_files_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("ref.json", {image_id: [*captions, None] for image_id, captions in PEOPLE.items()})
    put("pred.json", SAID | {"3": None})
    error = run(capsys, "pred.json", "ref.json", *FAST)[2].splitlines()
    assert error[:2] == [
        "showtell: ref.json: Captions left out because they are empty, null or not text: 3.",
        "showtell: pred.json: captions left out because they are null or not text: 1.",
    ]


GERMAN = {"1": ["Ein Mann reitet am Strand auf einem Pferd", "Zwei Hunde spielen mit einem Ball im Gras"]}


@pytest.mark.parametrize("command", ["score", "compare"])
def test_metrics_of_english_say_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """METEOR's data are English: of German it is left out, or says little where it is asked for; not without a word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOWTELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "site")))
    pytest.importorskip("Stemmer")
    put("p.json", {"1": "Zwei Hunde spielen"})
    put("r.json", GERMAN)
    both = [command, *["p.json"] * (1 + (command == "compare")), "r.json"]
    assert main(both) == 0
    shown = capsys.readouterr()
    assert "showtell: The references are in German, and METEOR is for English, so it is left out." in shown.err
    assert "sacreBLEU" in shown.out
    assert "METEOR" not in shown.out
    assert main([*both, "--language", "en"]) == 0
    assert "showtell: The captions do not seem to be English: METEOR and" in capsys.readouterr().err
    put("r.json", {"1": ["the man", "men running on the man"]})
    put("p.json", {"1": "the man"})
    assert main([command, *["p.json"] * (1 + (command == "compare")), "r.json"]) == 0
    assert "do not seem to be English" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "compare"])
def test_needs_neither_torch_nor_java_nor_the_network(place: Path, command: str) -> None:
    """In a process of its own, with an empty PATH, where connecting is an error."""
    code = f"""
import socket, sys
def refused(*_): raise AssertionError("connects")
socket.socket.connect = refused
from showtell.cli import main
code = main({[command, *["pred.json"] * (1 + (command == "compare")), "ref.json"]!r})
print(*({{"torch", "transformers", "onnxruntime", "accelerate"}} & set(sys.modules)), file=sys.stderr)
sys.exit(code)"""
    environment = {**os.environ, "PATH": "", "SHOWTELL_CACHE": str(place / "cache")}
    # Without the site's pycocoevalcap nothing is built here; METEOR says that it is missing.
    put("pycocoevalcap.py", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
    assert "CIDEr" in done.stdout
    assert "METEOR is missing: METEOR needs packages" in done.stdout


@pytest.mark.skipif(not DATA, reason="SHOWTELL_TEST_DATA does not name a folder with eval/")
@pytest.mark.parametrize("name", ["coco_demo", "coco", "flickr8k_dev"])
def test_official_scores_from_the_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(DATA or "") / "eval" / name
    code, out, _error = run(capsys, str(folder / "predictions.json"), str(folder / "references.json"), "--json")
    official = json.loads((folder / "scores.json").read_text())["scores"]
    found = json.loads(out)
    assert code == 0
    for metric, value in found["scores"].items():
        assert value == pytest.approx(official[metric], abs=1e-12, rel=0)
    assert set(found["scores"]) | set(found["missing"]) == set(official) - {"SPICE"}
