"""Recipes are read strictly, and every mistake is named."""

from pathlib import Path

import pytest

from showtell.errors import UsageError
from showtell.models.captioning_model import DECODERS
from showtell.training.recipe import Recipe, documented_keys, load_recipe
from showtell.training.stages.cross_entropy import CrossEntropy

ROOT = Path(__file__).parents[2]
RECIPES = [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("shipping/recipes/*.yaml")]
MINIMAL = """
name: tiny
encoder: {name: efficientnet_lite0}
decoder: {name: show_attend_and_tell}
stages: [{kind: cross_entropy}]
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_settings_change_parts(minimal: Path) -> None:
    recipe = load_recipe(minimal, ["stages.0.learning_rate=1e-4", "search.beam=5", "decoder.gate=false"])
    assert recipe.stages[0].learning_rate == 1e-4
    assert recipe.search.beam == 5
    assert recipe.decoder.gate is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "stages.0.learning_rat=1",
            "'stages.0.learning_rat' is not a known key; the nearest is 'learning_rate'",
        ),
        ("serch.beam=3", "the nearest is 'search'"),
        ("search.bean=3", "the nearest is 'beam'"),
        ("encoder.siez=64", "'encoder.siez' is not a known key; the nearest is 'size'"),
        ("decoder.gaet=true", "'decoder.gaet' is not a known key; the nearest is 'gate'"),
        ("decoder.layers=2", "'decoder.layers' is not a known key"),  # it is one of other decoders
        ("decoder.name=lstm", "'decoder.name': there is no 'lstm', only 'show_and_tell', 'show_attend_and_tell'"),
        ("decoder={}", "'decoder.name' is missing"),
        ("decoder.hidden_width=0", "'decoder.hidden_width': input should be greater than 0, given 0"),
        ("decoder={name: transformer, width: 9}", "'decoder': width 9 must be a multiple of twice heads 8"),
        ("stages.0.epochs=0", "'stages.0.epochs': input should be greater than 0, given 0"),
        ("stages.0.epochs=many", "'stages.0.epochs'"),
        ("precision=fp8", "'precision': input should be 'auto', 'float32', 'bf16' or 'fp16', given \"fp8\""),
        ("search.beam=0", "beam"),
        ("stages.1.epochs=3", "no part"),
        ("stages.0=", "stages.0"),
        ("epochs", "has no '='"),
    ],
)
def test_mistakes_are_named(minimal: Path, setting: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(minimal, [setting])
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["no", "'no'", "float32"])
def test_no_mixed_precision_has_two_names(minimal: Path, value: str) -> None:
    """YAML takes `no` without quotes for false; checkpoints from before `auto` hold it as a string."""
    assert load_recipe(minimal, [f"precision={value}"]).precision == "float32"
    assert load_recipe(minimal).precision == "auto"


def test_an_attention_penalty_without_attention_is_refused(minimal: Path) -> None:
    """It would change nothing, and its user would believe that it did."""
    with pytest.raises(UsageError, match=r"stages\.0\.doubly_stochastic: show_and_tell has no attention in training"):
        load_recipe(minimal, ["decoder={name: show_and_tell}", "stages.0.doubly_stochastic=1"])


def test_features_of_an_encoder_that_has_learnt_are_refused(minimal: Path) -> None:
    """They would be those of the encoder before."""
    minimal.write_text(MINIMAL.replace("stages: [", "stages: [{kind: cross_entropy, encoder_stages: 1}, "))
    with pytest.raises(UsageError, match="once a stage trains the encoder"):
        load_recipe(minimal)


def test_all_mistakes_are_named_at_once(minimal: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)epoch.*beem"):
        load_recipe(minimal, ["stages.0.epoch=3", "search.beem=3"])


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is not YAML"), ("- 1", "must map keys"), (None, "can't be read")]
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "broken.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_learning_rate_rises_and_falls() -> None:
    stage = CrossEntropy(warmup=0.1)
    shares = [stage.learning_rate_factor(done / 100) for done in range(101)]
    assert 0 < shares[0] < 0.02
    assert max(shares) == shares[10] == 1
    assert shares[:11] == sorted(shares[:11])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[100] < 1e-9


def test_every_key_is_documented() -> None:
    """`showtell train --keys` is the manual of recipes."""
    rows = documented_keys()
    keys = {key for key, _, _ in rows}
    assert {"encoder.name", "decoder.gate", "stages.0.learning_rate", "search.beam", "seed"} <= keys
    assert [key for key, _, meaning in rows if not meaning and not key.endswith((".name", ".kind"))] == []


def documented_values() -> list[tuple[str, str]]:
    """Each key with its default, and each choice of a key that has choices, as people would type them."""
    values = [(key, default) for key, default, _ in documented_keys() if default != "(required)"]
    choices: list[tuple[str, str]] = [("precision", "no")]

    def walk(part: object, key: str) -> None:
        if isinstance(part, dict):
            choices.extend((key, str(choice)) for choice in part.get("enum", ()))
            for name, inner in part.items():
                walk(inner, name)
        elif isinstance(part, list):
            for inner in part:
                walk(inner, key)

    walk(Recipe.model_json_schema(), "")
    places = {key.rpartition(".")[2]: key for key, _ in values}
    return values + [(places[key], choice) for key, choice in choices if key in places.keys() - {"name", "kind"}]


CAPTIONER = "'hf:org/name', architecture: {}"


@pytest.mark.parametrize(("key", "value"), documented_values())
def test_what_is_documented_can_be_written_so(key: str, value: str, minimal: Path) -> None:
    """In some recipe that has the key: those of encoders, decoders and stages belong to some of them."""
    refused = []
    for encoder in ("efficientnet_lite0", "timm:resnet18", "google/vit-base-patch16-224", CAPTIONER):
        for decoder in DECODERS:
            for kind in ("cross_entropy", "self_critical"):
                parts = [f"encoder={{name: {encoder}}}", f"decoder={{name: {decoder}}}", f"stages=[{{kind: {kind}}}]"]
                try:
                    load_recipe(minimal, [*parts, f"{key}={value}"])
                except UsageError as error:
                    refused.append(str(error))
                else:
                    return
    pytest.fail(refused[0])


def test_a_key_that_is_no_text_is_named(minimal: Path) -> None:
    minimal.write_text(f"{MINIMAL}search: {{12: null}}\n")
    with pytest.raises(UsageError, match="12"):
        load_recipe(minimal)


@pytest.mark.parametrize("setting", ["seed=true", "stages.0.epochs=on", "decoder.dropout=false"])
def test_a_boolean_is_no_number(minimal: Path, setting: str) -> None:
    """`on` was 1, in silence."""
    with pytest.raises(UsageError, match=f"'{setting.partition('=')[0]}' must be a number, not true or false"):
        load_recipe(minimal, [setting])
