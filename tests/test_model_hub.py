"""Models on the Hub, a fake one on this machine: fetched, pinned, cached, pushed, and every refusal in a sentence."""

import json
import os
import subprocess
import sys

import pytest

import showtell
from showtell import model_hub as hub
from showtell.bundle import FILES, load_bundle
from showtell.cli import main
from showtell.errors import BundleError, MissingExtraError, UsageError
from tests.fake_hub import fake_hub
from tests.fake_model import picture, save_fake_model, use_fake_engine

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the [hub] extra")

WHERE = "hub:museum/captions"


@pytest.fixture
def model(tmp_path):
    return save_fake_model(tmp_path / "model", scores={"CIDEr": 0.5, "BLEU-1": 0.6, "BLEU-4": 0.2, "ROUGE_L": 0.4})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(monkeypatch, tmp_path, model):
    """A hub with one model of one commit, an empty cache, and a token."""
    junk = {"pytorch_model.bin": b"pickle", "run.py": b"evil", "sub/config.json": b"{}"}
    with fake_hub({"museum/captions": [contents(model) | junk]}, tmp_path / "cache", monkeypatch) as server:
        yield server


def test_a_model_of_the_hub_captions(server, monkeypatch):
    use_fake_engine(monkeypatch)
    captioner = showtell.load(WHERE)
    assert captioner(picture("red"))[0].text == "a red picture of nothing"
    assert captioner.config.training["hub"] == f"{WHERE}@{server.sha('museum/captions')}"


def test_only_files_of_a_model_are_fetched(server):
    """A pickle or a program that never arrives can't be run by mistake."""
    bundle = load_bundle(WHERE)
    assert {path.name for path in bundle.path.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "README.md",
    }
    assert not [request for request in server.requests if "pytorch_model" in request or "run.py" in request]


def test_the_newest_commit_unless_one_is_named(server, tmp_path):
    first = server.sha("museum/captions", 0)
    server.commits["museum/captions"].append(contents(save_fake_model(tmp_path / "second", name="second")))
    assert load_bundle(WHERE).config.name == "second"
    assert load_bundle(f"{WHERE}@{first}").config.name == "fake"
    assert load_bundle(f"{WHERE}@main").config.name == "second"


def test_the_commit_is_printed(server, capsys):
    assert main(["models", WHERE]) == 0
    out, error = capsys.readouterr()
    assert error == f"showtell: {WHERE} is {WHERE}@{server.sha('museum/captions')}\n"
    assert server.sha("museum/captions") in out


def test_a_commit_in_the_cache_is_used_without_asking(server):
    pinned = f"{WHERE}@{server.sha('museum/captions')}"
    load_bundle(pinned)
    server.requests.clear()
    assert load_bundle(pinned).config.training["hub"] == pinned
    assert server.requests == []


@pytest.mark.parametrize("there", [["README.md"], ["config.json", "tokenizer.json"]])
@pytest.mark.parametrize("way", ["newest", "pinned", "offline"])
def test_what_a_killed_process_has_fetched_of_a_model_is_no_model(server, monkeypatch, there, way):
    """Who names a commit got a part of it for ever, as a folder of that name is in the cache."""
    from huggingface_hub import HfApi

    HfApi().snapshot_download("museum/captions", allow_patterns=there)
    pinned = f"{WHERE}@{server.sha('museum/captions')}"
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(BundleError, match="is not in the cache"):
            load_bundle(WHERE)
    else:
        assert load_bundle(pinned if way == "pinned" else WHERE).weights().keys() == {"w"}


@pytest.mark.parametrize("way", ["offline", "no server", "server in trouble"])
def test_without_the_hub_the_cache_is_used_and_a_note_written(server, capsys, monkeypatch, way):
    load_bundle(WHERE)
    if way == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif way == "no server":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        server.refusal = (503, "")
    capsys.readouterr()
    assert main(["models", WHERE]) == 0
    assert f"{server.sha('museum/captions')}, from the cache: " in capsys.readouterr().err


def test_without_the_hub_and_never_fetched(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=r"can't be fetched \(.*\) and is not in the cache\. Try again"):
        load_bundle(WHERE)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, "RepoNotFound"), r"There is no hub:museum/captions, or it is private\. If it is private: Log in with"),
        ((404, "RepoNotFound"), r"There is no hub:museum/captions, or it is private"),
        ((403, "GatedRepo"), r"must be requested\. Request access on http://127.*/museum/captions, then: Log in"),
        ((404, "RevisionNotFound"), r"hub:museum/captions: the model has no such revision\. See .*/commits/main"),
        ((403, ""), r"answers 403 for hub:museum/captions: the token does not allow this"),
    ],
)
def test_refusals(server, refusal, message):
    server.refusal = refusal
    with pytest.raises(BundleError, match=message):
        load_bundle(WHERE)


def test_no_such_model_and_no_such_revision(server):
    with pytest.raises(BundleError, match="There is no hub:museum/nothing"):
        load_bundle("hub:museum/nothing")
    with pytest.raises(BundleError, match="hub:museum/captions@v9: the model has no such revision"):
        load_bundle(f"{WHERE}@v9")


def test_a_repository_of_something_else(server):
    server.commits["museum/captions"] = [{"README.md": b"#", "pytorch_model.bin": b""}]
    with pytest.raises(
        BundleError, match="hub:museum/captions is not a model that showtell can read: it has no config"
    ):
        load_bundle(WHERE)


@pytest.mark.parametrize("where", ["hub:", "hub:name", "hub:a/b/c", "hub:a/b@", "hub:../x", "hub:a/b c"])
def test_what_is_no_name(where):
    with pytest.raises(UsageError, match=r"is not the name of a model on the Hub|is not the name of a model"):
        load_bundle(where)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[hub\]'"):
        load_bundle(WHERE)


def test_what_is_pushed_can_be_loaded(server, model, capsys):
    assert main(["push", str(model), "hub:museum/new", "--license", "apache-2.0", "--dataset", "coco"]) == 0
    out = capsys.readouterr().out
    pinned = f"hub:museum/new@{server.sha('museum/new')}"
    assert out.splitlines()[-1] == f"Pushed. To caption with it: showtell caption photo.jpg --model {pinned}"
    files = server.commits["museum/new"][-1]
    assert files.keys() == {"config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert {name: files[name] for name in files if name != "README.md"} == {
        name: content for name, content in contents(model).items() if name != "README.md"
    }
    assert load_bundle(pinned).config.name == "fake"
    assert load_bundle(pinned).weights().keys() == {"w"}


def test_the_card_says_what_the_hub_lists_models_by(server, model):
    (model / "README.md").write_text("# fake\n\n    showtell caption x --model PATH_OF_THIS_FOLDER\n")
    main(["push", str(model), "hub:museum/new", "--license", "cc-by-4.0", "--dataset", "coco", "--dataset", "flickr8k"])
    _, front, body = server.commits["museum/new"][-1]["README.md"].decode().split("---\n", 2)
    for line in ("license: cc-by-4.0", "pipeline_tag: image-to-text", "library_name: showtell",
                 "datasets:\n- coco\n- flickr8k", "metrics:\n- cider\n- bleu\n- rouge\n",
                 "- image-captioning"):  # fmt: skip
        assert line in front
    assert body == "\n# fake\n\n    showtell caption x --model hub:museum/new\n"


def test_what_the_card_says_itself_stays(server, model):
    (model / "README.md").write_text("---\nlicense: mit\nlanguage: de\ntags:\n- mine\n---\n# fake\n")
    main(["push", str(model), "hub:museum/new"])
    card = server.commits["museum/new"][-1]["README.md"].decode()
    assert "license: mit\n" in card
    assert "language: de\n" in card
    assert "tags:\n- mine\n" in card
    assert card.endswith("---\n\n# fake\n")


def test_a_card_that_is_no_yaml(server, model, capsys):
    (model / "README.md").write_text("---\nlicense: [\n---\n# fake\n")
    assert main(["push", str(model), "hub:museum/new"]) == 1
    assert "The front matter of the model card can't be read" in capsys.readouterr().err
    assert "museum/new" not in server.commits


def test_a_model_without_license_is_told(server, model, capsys):
    assert main(["push", str(model), "hub:museum/new", "--private"]) == 0
    assert "the model has no license" in capsys.readouterr().err
    assert server.private["museum/new"]


def test_pushing_removes_the_last_models_other_files(server, model):
    """An exported model's graphs beside new weights would caption with the old ones; other files are not ours."""
    server.commits["museum/captions"][-1]["encoder.onnx"] = b"old"
    assert main(["push", str(model), WHERE]) == 0
    files = server.commits["museum/captions"][-1]
    assert "encoder.onnx" not in files
    assert files["run.py"] == b"evil"
    assert len(server.commits["museum/captions"]) == 2


def test_pushing_without_a_token(server, model, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main(["push", str(model), WHERE]) == 1
    assert "needs a token that may write. Log in with 'hf auth login'" in capsys.readouterr().err


def test_pushing_where_one_may_not(server, model, capsys):
    server.refusal = (403, "")
    assert main(["push", str(model), WHERE]) == 1
    assert "the token does not allow this" in capsys.readouterr().err


def test_pushing_to_a_hub_in_trouble(server, model, capsys):
    server.refusal = (500, "")
    assert main(["push", str(model), WHERE]) == 1
    assert "can't be pushed to hub:museum/captions: " in capsys.readouterr().err


def test_pushing_to_a_revision(server, model, capsys):
    assert main(["push", str(model), f"{WHERE}@v1"]) == 2
    assert "names a revision, and pushing makes a new one. Write hub:museum/captions." in capsys.readouterr().err


def test_a_process_with_the_hubs_own_variables(server, tmp_path):
    """The whole way, HF_ENDPOINT and HF_HUB_OFFLINE read by the library itself."""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "other")}
    run = [sys.executable, "-m", "showtell", "models", "--json", WHERE]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["training"]["hub"] == f"{WHERE}@{server.sha('museum/captions')}"
    assert done.stderr.count("\n") == 1, "the library's own bars or warnings are on stderr"
    server.requests.clear()
    done = subprocess.run(run, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "from the cache: " in done.stderr
    assert server.requests == []


def test_names_of_files_are_the_bundles():
    """A file that a bundle learns to have must be fetched, too."""
    from showtell import bundle

    names = {
        value for name, value in vars(bundle).items() if name.isupper() and isinstance(value, str) and "." in value
    }
    assert set(FILES) == names
    assert hub.PREFIX == "hub:"
