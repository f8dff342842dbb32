"""`showtell average`: the mean of weights, and of models that can have one only."""

import numpy as np
import pytest

from showtell import load
from showtell.bundle import BundleConfig, load_bundle, save_bundle
from showtell.cli import main
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.fake_model import CAPTIONS, fake_config, fake_tokenizer, picture
from tests.tiny_model import save_tiny_model


def save(folder, weights, tokenizer=None, config: BundleConfig | None = None):
    save_bundle(folder, config or fake_config(), tokenizer or fake_tokenizer(), weights, "a card")
    return str(folder)


@pytest.fixture
def two(tmp_path):
    first = save(tmp_path / "a", {"w": np.array([1.0, 2.0], np.float32), "steps": np.array(4)})
    second = save(tmp_path / "b", {"w": np.array([4.0, -1.0], np.float32), "steps": np.array(4)})
    return [first, second]


def test_mean_by_shares(two, tmp_path, capsys):
    assert main(["average", *two, "--share", "2", "--share", "1", "--out", str(tmp_path / "mean")]) == 0
    assert capsys.readouterr().out == f"Model: {tmp_path / 'mean'}\n"
    bundle = load_bundle(tmp_path / "mean")
    weights = bundle.weights()
    np.testing.assert_allclose(weights["w"], [2.0, 1.0])
    assert weights["w"].dtype == np.float32
    assert weights["steps"] == 4
    assert weights["steps"].dtype == np.int64
    assert bundle.config.name == "mean"
    assert bundle.config.training == {"mean_of": ["fake", "fake"], "shares": [2.0, 1.0]}  # and no path of this machine
    assert "67% of `fake`" in (tmp_path / "mean" / "README.md").read_text()


def test_equal_shares_without_any(two, tmp_path):
    assert main(["average", *two, "--out", str(tmp_path / "mean")]) == 0
    np.testing.assert_allclose(load_bundle(tmp_path / "mean").weights()["w"], [2.5, 0.5])


def test_scores_of_the_first_are_not_the_means(two, tmp_path):
    scored = fake_config().model_copy(update={"scores": {"CIDEr": 0.9}})
    first = save(tmp_path / "scored", {"w": np.zeros(2, np.float32), "steps": np.array(4)}, config=scored)
    assert main(["average", first, two[1], "--out", str(tmp_path / "mean")]) == 0
    assert load_bundle(tmp_path / "mean").config.scores == {}


def test_the_mean_of_a_model_with_itself_captions_as_it_does(tmp_path):
    model = str(save_tiny_model(tmp_path / "tiny", attention=True))
    assert main(["average", model, model, model, "--out", str(tmp_path / "mean")]) == 0
    photo = np.asarray(picture("red", 64))
    assert load(tmp_path / "mean")(photo)[0].text == load(model)(photo)[0].text


@pytest.mark.parametrize(
    ("weights", "words", "message"),
    [
        ({"w": np.zeros(3, np.float32), "steps": np.array(4)}, None, "are models of different kinds or sizes."),
        ({"v": np.zeros(2, np.float32), "steps": np.array(4)}, None, "are models of different kinds or sizes."),
        ({"w": np.zeros(2, np.float32), "steps": np.array(4)}, CAPTIONS[:1], "have different words."),
    ],
)
def test_models_that_have_no_mean(two, tmp_path, capsys, weights, words, message):
    tokenizer = Tokenizer.train(words, TokenizerConfig(min_count=1)) if words else None
    other = save(tmp_path / "other", weights, tokenizer)
    assert main(["average", two[0], other, "--out", str(tmp_path / "mean")]) == 2
    assert f"{other} and {two[0]} {message}" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_shares_that_make_no_mean(two, tmp_path, capsys):
    for shares in (["1"], ["0", "0"], ["-1", "2"], ["nan", "1"], ["inf", "1"]):
        flags = [part for share in shares for part in ("--share", share)]
        assert main(["average", *two, *flags, "--out", str(tmp_path / "mean")]) == 2
        assert "There are 2 models and --share [" in capsys.readouterr().err


def test_a_mean_takes_the_place_of_nothing_but_a_mean(two, tmp_path, capsys):
    """It took that of a trained model, and of a file, which stayed under a hidden name."""
    for _ in range(2):
        assert main(["average", *two, "--out", str(tmp_path / "mean")]) == 0
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    (tmp_path / "hf" / "pytorch_model.bin").write_text("weights")
    (tmp_path / "file").write_text("mine")
    before = load_bundle(two[0]).weights()["w"].tolist()
    for out, why in (
        (two[0], "holds a trained model"),
        (tmp_path / "hf", "(pytorch_model.bin)"),
        (tmp_path / "file", "is a file"),
    ):
        assert main(["average", *two, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert why in error
        assert "Choose a new folder." in error
    assert load_bundle(two[0]).weights()["w"].tolist() == before
    assert (tmp_path / "file").read_text() == "mine"
