"""Folders of captioners of `transformers`: from the Hub, in shards, damaged, and with programs that must not run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import showtell
from showtell.bundle import load_bundle
from showtell.cli import main
from showtell.errors import BundleError
from showtell.images.decode import prepare
from showtell.models.encoders import build_encoder
from showtell.models.encoders.transformers_backbone import preprocessing_of
from showtell.models.pretrained import reading
from tests.fake_hub import fake_hub
from tests.small_captioners import write

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the [hub] extra")

REPO = "museum/blind"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "vit_bert"
    write("vit_bert", folder, steps=2)
    return folder


@pytest.fixture(scope="module")
def in_shards(written, tmp_path_factory) -> Path:
    from transformers import VisionEncoderDecoderModel

    folder = tmp_path_factory.mktemp("shards") / "model"
    shutil.copytree(written, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    VisionEncoderDecoderModel.from_pretrained(written).save_pretrained(folder, max_shard_size="60KB")
    return folder


@pytest.fixture
def folder(written, tmp_path, monkeypatch) -> Path:
    """One to damage; nothing may unpickle it."""
    shutil.copytree(written, tmp_path / "it")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    return tmp_path / "it"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change(file: Path, **settings) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def server(written, monkeypatch, tmp_path):
    junk = {"pytorch_model.bin": b"pickle", "modeling_evil.py": b"evil", "tf_model.h5": b"h5", "onnx/model.onnx": b"x"}
    with fake_hub({REPO: [contents(written) | junk]}, tmp_path / "cache", monkeypatch) as server:
        yield server


# -------------------------------------------------------------------- the Hub


@pytest.mark.parametrize("prefix", ["hf:", "hub:"])
def test_only_what_is_read_is_fetched(server, written, prefix, monkeypatch):
    where = f"{prefix}{REPO}"
    bundle = load_bundle(where)
    assert {path.name for path in bundle.path.iterdir()} == {path.name for path in written.iterdir()}
    assert not [r for r in server.requests if r.endswith((".bin", ".py", ".h5", ".onnx"))]
    pinned = f"{where}@{server.sha(REPO)}"
    assert bundle.config.training == {"of": where, "hub": pinned}
    assert (bundle.config.name, bundle.config.encoder["name"]) == ("blind", f"hf:{REPO}")
    server.requests.clear()
    assert load_bundle(pinned).config.training["hub"] == pinned
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_bundle(where).config.training["hub"] == pinned
    assert server.requests == []


def test_a_revision_and_shards(server, in_shards, written):
    server.commits[REPO].append(contents(in_shards))
    first = load_bundle(f"hf:{REPO}@{server.sha(REPO, 0)}")
    second = load_bundle(f"hf:{REPO}@main")
    assert len(list(second.path.glob("model-0000?-of-0000?.safetensors"))) > 2
    assert first.weights().keys() == second.weights().keys()
    assert all((array == second.weights()[key]).all() for key, array in first.weights().items())


def test_a_command(server, capsys):
    assert main(["models", f"hf:{REPO}"]) == 0
    out, error = capsys.readouterr()
    assert error == f"showtell: hf:{REPO} is hf:{REPO}@{server.sha(REPO)}\n"
    assert out.startswith("blind  (")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architectures": ["Florence2ForConditionalGeneration"]}, "is a Florence2ForConditionalGeneration, which"),
        ({"architectures": ["PaliGemmaForConditionalGeneration"]}, "which showtell can't read. It reads BlipForCondit"),
        ({"architectures": ["LlavaForConditionalGeneration"]}, "is a LlavaForConditionalGeneration, which"),
        ({"architectures": None, "model_type": "llava"}, "is a model of type llava, which showtell can't read. It rea"),
        ({"architectures": ["Blip2ForConditionalGeneration"], "text_config": {"model_type": "t5"}},
         "is a Blip2ForConditionalGeneration that writes with t5, which showtell can't read. It reads those that"),
        ({"quantization_config": {"quant_method": "awq"}}, "are quantised. Use the model in float32 or float16."),
    ],
)  # fmt: skip
def test_no_gigabytes_of_another_model_are_fetched(server, settings, message):
    files = server.commits[REPO][0]
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | settings).encode()
    with pytest.raises(BundleError) as caught:
        load_bundle(f"hf:{REPO}")
    assert message in str(caught.value)
    assert not [request for request in server.requests if request.endswith(".safetensors")]


def test_weights_in_pickles_only(server):
    del server.commits[REPO][0]["model.safetensors"]
    with pytest.raises(
        BundleError, match=r"hf:museum/blind holds no model.safetensors, .* Name a revision that has it"
    ):
        load_bundle(f"hf:{REPO}")


# -------------------------------------------------------------------- files


def test_shards_and_half_precision(folder, in_shards, written):
    expected = load_bundle(written).weights()
    found = load_bundle(in_shards).weights()
    assert all((array == found[key]).all() for key, array in expected.items())
    halves = {key: tensor.half() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    halved = load_bundle(folder).weights()
    assert {str(array.dtype) for array in halved.values()} == {"float32"}


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1000])


def lacking(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.bert.encoder.layer.0.attention.self.query.bias"]
    save_file(weights, folder / "model.safetensors")


def of_another_size(folder):
    decoder = json.loads((folder / "config.json").read_text())["decoder"]
    change(folder / "config.json", decoder=decoder | {"intermediate_size": 41})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut("model.safetensors"), "model.safetensors can't be read: Error while deserializing header: .* Copy the"),
        (lacking, "has no weights decoder.bert.encoder.layer.0.attention.self.query.bias of the size"),
        (of_another_size, "has no weights decoder.bert.encoder.layer.0.intermediate.dense.bias of the size"),
        (without("tokenizer.json", "vocab.txt"), "holds no tokenizer.json. Write it with transformers: token"),
        (cut("tokenizer.json"), "can't be read: .* It may be damaged, or of a newer transformers."),
        (without("preprocessor_config.json"), "holds no preprocessor_config.json, which says how photos are resized."),
        (cut("config.json"), "config.json is not JSON: .* Copy the model folder again"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "holds no settings. Copy the"),
        (lambda folder: change(folder / "preprocessor_config.json", size={"height": 32, "width": 48}),
         "does not resize photos to squares: its size is .* Set a square size in .*preprocessor_config.json"),
        (lambda folder: change(folder / "config.json", architectures=[["x"]]), "which showtell can't read"),
        (lambda folder: change(folder / "config.json", decoder="x"), "that writes with x, which showtell can't read"),
        (lambda folder: change(folder / "config.json", decoder={"model_type": "bert"}), "does not look at the image"),
        (lambda folder: change(folder / "config.json", num_image_with_embedding=6), "describes videos"),
        (lambda folder: change(folder / "preprocessor_config.json", image_processor="x"), "can't be read"),
        (lambda folder: change(folder / "preprocessor_config.json", image_mean=0.5), "can't be read"),
        (lambda folder: change(folder / "preprocessor_config.json", size=36), "patches have 8 pixels a side. Set a"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_sentence(folder, damage, message):
    damage(folder)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_no_index_leads_to_a_pickle(folder):
    """transformers itself would read what the index names, whatever it is."""
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "evil.bin")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "evil.bin")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match=r"evil\.bin can't be read"):
        load_bundle(folder)


def test_no_program_of_the_folder_runs(folder, monkeypatch):
    """Nor is anybody asked whether it may, nor is an attention of the Hub's fetched, nor an adapter read."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    (folder / "evil.py").write_text("raise SystemExit('it ran')\n")
    change(folder / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"},
           attn_implementation="evil/attention", transformers_weights=None)  # fmt: skip
    change(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Processor"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Words", None]})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil"}))
    captioner = showtell.load(folder)
    assert captioner.config.encoder["architecture"].get("attn_implementation") is None
    change(folder / "tokenizer_config.json", tokenizer_class="Words")  # which only the program has
    with pytest.raises(BundleError, match="can't be read"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("ViTImageProcessor", {"size": 32, "resample": 2}),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
        ("BlipImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    ],
)
def test_photos_are_seen_as_transformers_sees_them(processor, settings) -> None:
    """Photos that are no squares; what a processor does not say, its class says."""
    import transformers

    own = getattr(transformers, f"{processor}Pil", None) or getattr(transformers, processor)
    photo = np.linspace(0, 255, 40 * 64 * 3).reshape(40, 64, 3).astype(np.uint8)
    photo[10:20, 5:15] = (250, 20, 90)
    theirs = np.array(own(**settings)(Image.fromarray(photo), return_tensors="np")["pixel_values"])
    ours = prepare([photo], preprocessing_of({"image_processor_type": processor, **settings}, "it"))
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).mean() < 0.05, "a crop in place of a squash is ten times that"


def test_a_model_without_a_size_has_its_processors() -> None:
    assert preprocessing_of({"image_processor_type": "BlipImageProcessor"}, "it").size == 384
    with pytest.raises(BundleError, match="does not divide pixels by 255"):
        preprocessing_of({"image_processor_type": "BlipImageProcessor", "do_rescale": False}, "it")


def test_no_program_of_half_a_model_runs(folder) -> None:
    """Its image half names one; so does a model folder of showtell that came from anywhere."""
    published = json.loads((folder / "config.json").read_text())
    evil = {"auto_map": {"AutoModel": "evil/repo--m.Evil"}, "attn_implementation": "evil/kernel"}
    change(folder / "config.json", encoder=published["encoder"] | evil)
    bundle = load_bundle(folder)
    assert "evil" not in json.dumps(bundle.config.encoder)
    encoder = bundle.config.encoder | {"architecture": bundle.config.encoder["architecture"] | evil}
    assert build_encoder(encoder, pretrained=False).cells == 17


def test_what_a_model_is_called(folder, server) -> None:
    assert load_bundle(folder).config.name == "it"
    assert load_bundle(f"hf:{REPO}@main").config.name == "blind"


def test_settings_of_the_search(folder, monkeypatch) -> None:
    said = []
    monkeypatch.setattr(reading.logger, "warning", lambda text, *values: said.append(text % values))
    change(folder / "generation_config.json", num_beams=4, min_length=6, repetition_penalty=1.3, early_stopping=True)
    search = load_bundle(folder).config.search
    assert (search.beam, search.min_words, search.like_generate) == (4, 5, True)
    assert len(said) == 1
    assert "early_stopping True, repetition_penalty 1.3" in said[0]


def test_several_ends(folder) -> None:
    change(folder / "generation_config.json", eos_token_id=[6, 7])
    with pytest.raises(BundleError, match="any of 2 tokens"):
        load_bundle(folder)


def test_this_folder(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    assert load_bundle(".").config.name == "it"
