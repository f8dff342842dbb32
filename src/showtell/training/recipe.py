"""A recipe: everything about a training run, in one YAML file that is read strictly."""

import difflib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from showtell.bundle import load_bundle
from showtell.errors import DataError, UsageError
from showtell.files import read_text
from showtell.models.captioning_model import AnyDecoderConfig, decoder_class
from showtell.models.encoders import EncoderConfig
from showtell.search.options import SearchOptions
from showtell.tokenizer import TokenizerConfig
from showtell.training.stages.cross_entropy import CrossEntropy
from showtell.training.stages.self_critical import SelfCritical

Json = dict[str, Any]
StageConfig = Annotated[CrossEntropy | SelfCritical, Field(discriminator="kind")]


class Recipe(BaseModel):
    """The model and how it is trained. The config of each part is in the file that it configures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="what the trained model is called")
    encoder: EncoderConfig = Field(
        description="the image encoder; with start_from its name and the decoder's may be left out"
    )
    decoder: AnyDecoderConfig = Field(description="the caption decoder")
    data: tuple[str, ...] = Field(
        (),
        description="data sets, each a SPEC, if the command names none; the first one's dev images choose the model",
    )
    start_from: str | None = Field(
        None, description="run or model folder to start from: its weights and its words; by default fresh weights"
    )
    start_counts: bool = Field(
        False, description="also validate the model that training starts from, and keep it if no epoch is better"
    )
    tokenizer: TokenizerConfig = Field(
        TokenizerConfig(), description="how captions become words, unless start_from knows"
    )
    stages: tuple[StageConfig, ...] = Field(min_length=1, description="what is trained, one after the other")
    search: SearchOptions = Field(
        SearchOptions(), description="how validation captions are generated, and the model's default"
    )
    max_words: int = Field(40, gt=0, description="most words of a training caption; longer ones are cut")
    validation_images: int | None = Field(
        None, gt=0, description="how many dev images to caption after each epoch; by default all"
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto",
        description="precision of products: auto is bf16 if the hardware has it, else float32; no is float32",
    )
    checkpoint_seconds: float = Field(
        120, ge=0, description="seconds between two checkpoints; one is also written after each epoch"
    )
    seed: int = Field(0, ge=0, description="seed of every random choice of the run")

    @field_validator("precision", mode="before")
    @classmethod
    def _no_is_float32(cls, value: Any) -> Any:
        """`no` is the name from before `auto`; without quotes, YAML reads it as false."""
        return "float32" if value is False or value == "no" else value

    @model_validator(mode="after")
    def _features_stay_true(self) -> Self:
        """A cache holds features from before the encoder learned."""
        learning = [stage.encoder_stages > 0 for stage in self.stages]
        if learning != sorted(learning):
            raise ValueError("stages: once a stage trains the encoder (encoder_stages), the later ones must do so too")
        return self

    @model_validator(mode="after")
    def _a_start_is_there(self) -> Self:
        if self.start_counts and self.start_from is None:
            raise ValueError("start_counts: there is no start_from")
        return self

    @model_validator(mode="after")
    def _layers_are_there(self) -> Self:
        for number, stage in enumerate(self.stages):
            key = "lora" if stage.lora else "decoder_layers" if stage.decoder_layers else None
            if key and not decoder_class(self.decoder.name).layered:
                raise ValueError(f"stages.{number}.{key}: {self.decoder.name} has no Transformer layers; leave it out")
        return self

    @model_validator(mode="after")
    def _attention_is_there(self) -> Self:
        """A loss weight that would change nothing is a mistake."""
        for number, stage in enumerate(self.stages):
            if (
                isinstance(stage, CrossEntropy)
                and stage.doubly_stochastic
                and not decoder_class(self.decoder.name).attends_in_training
            ):
                raise ValueError(
                    f"stages.{number}.doubly_stochastic: {self.decoder.name} has no attention in training; leave it out"
                )
        return self


def load_recipe(path: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` settings, with dots for parts: ``stages.0.epochs=3``.

    Raises:
        UsageError: there is no such file, it is not YAML, or keys and values are wrong; all wrong ones are named.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(read_text(path))
    except DataError as error:
        raise UsageError(str(error)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"The recipe {path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(data, dict):
        raise UsageError(f"The recipe {path} must map keys to values, and holds {type(data).__name__}.")
    return parse_recipe(with_settings(data, settings), str(path))


def with_settings(data: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A recipe's data with `key=value` settings applied. Raises UsageError."""
    for setting in settings:
        _apply(data, setting)
    return data


def parse_recipe(data: dict[str, Any], source: str) -> Recipe:
    """A recipe from its data; UsageError lists every wrong key and value, with the nearest known key.

    If it starts from a model and names no encoder and no decoder, their settings are that model's, except for what the
    recipe says; so are those of the search.

    Raises:
        BundleError: there is no such model.
    """
    start, parts = data.get("start_from"), [data.get("encoder", {}), data.get("decoder", {})]
    if isinstance(start, str) and all(isinstance(part, dict) and "name" not in part for part in parts):
        config = load_bundle(start).config
        own = {"encoder": config.encoder | parts[0], "decoder": config.decoder | parts[1]}
        data = {"search": asdict(config.search), **data, **own}
    try:
        recipe = Recipe.model_validate(data)
        if wrong := list(_booleans_as_numbers(data, recipe.model_dump(mode="json"))):
            raise UsageError(f"{source}: '{wrong[0]}' must be a number, not true or false.")
        return recipe
    except ValidationError as error:
        # If all stages are wrong, pydantic adds that there are none.
        details = [detail for detail in error.errors() if detail["type"] != "too_short" or not detail["input"]]
        raise UsageError(f"{source}: {'; '.join(map(_problem, details))}.") from error


def _booleans_as_numbers(given: Any, read: Any, place: str = "") -> Iterator[str]:
    """The keys that were given `true` or YAML's `on`, which pydantic turned into 1."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given:
            yield from _booleans_as_numbers(given[key], read.get(key), f"{place}.{key}")
    elif isinstance(given, list) and isinstance(read, list):
        for number, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from _booleans_as_numbers(one, other, f"{place}.{number}")
    elif isinstance(given, bool) and isinstance(read, int | float) and not isinstance(read, bool):
        yield place.removeprefix(".")


def _apply(data: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set {setting} has no '='.", "Write it as --set stages.0.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        with suppress(ValueError):
            value = float(value)
    *parents, last = key.strip().split(".")
    place: Any = data
    for part in parents:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            raise UsageError(f"--set {key}: there is no part '{part}' to set something in.")
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UsageError(f"--set {key}: '{last}' is not a key that can be set.")


def _problem(detail: Any) -> str:
    """One wrong key or value, in words."""
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *before, last = detail["loc"]
        steps, parts = _walked(before)
        known = sorted({key for part in parts for key in part.get("properties", {})})
        nearest = difflib.get_close_matches(str(last), known, 1, cutoff=0)
        return f"'{_dotted([*steps, last])}' is not a known key; the nearest is '{nearest[0]}'"
    key = _dotted(_walked(detail["loc"])[0])
    if detail["type"] == "union_tag_invalid":
        return f"'{key}.{_tag(detail)}': there is no '{detail['ctx']['tag']}', only {detail['ctx']['expected_tags']}"
    if detail["type"] == "union_tag_not_found":
        return f"'{key}.{_tag(detail)}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if detail["type"] == "missing" else f", given {json.dumps(detail['input'], default=str)[:80]}"
    return f"'{key}': {message[:1].lower()}{message[1:]}{given}"


def _tag(detail: Any) -> str:
    """The key that says of which kind a part is: `name` or `kind`."""
    return str(detail["ctx"]["discriminator"]).strip("'")


def documented_keys() -> list[tuple[str, str, str]]:
    """Every key of a recipe as (key, default, meaning), in order; `stages.0` stands for any stage."""
    schema = Recipe.model_json_schema()
    rows: list[tuple[str, str, str]] = []

    def walk(part: Json, place: str) -> None:
        for key, value in part.get("properties", {}).items():
            value_or_items = value.get("items", value)
            options = value_or_items.get("oneOf") or value_or_items.get("anyOf") or [value_or_items]
            parts = [_referred(schema, one) for one in options]
            inner = [one for one in parts if "properties" in one]
            name = f"{place}{key}{'.0' if value.get('type') == 'array' and inner else ''}"
            if not inner:
                default = json.dumps(value["default"]) if "default" in value else "(required)"
                rows.append((name, default, " ".join(value.get("description", "").split())))
            for one in inner:
                walk(one, f"{name}.")

    walk(schema, "")
    return list(dict.fromkeys(rows))


def _referred(schema: Json, part: Json) -> Json:
    """The definition that a part of a JSON schema refers to, or the part itself."""
    definition: Json = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
    return definition


def _dotted(steps: Sequence[int | str]) -> str:
    return ".".join(map(str, steps))


def _walked(place: Sequence[int | str]) -> tuple[list[int | str], list[Json]]:
    """Where pydantic found a problem, such as ("decoder", "transformer", "heads"), step by step through the schema.

    Returns:
        The steps as in the recipe, without pydantic's names for alternatives ("transformer"), and the schemas that may
        apply there.
    """
    schema = Recipe.model_json_schema()

    def resolved(part: Json) -> list[Json]:
        """The schemas that a schema stands for: what it refers to, or each of its alternatives."""
        part = _referred(schema, part)
        alternatives = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
        return [part] if not alternatives else [one for other in alternatives for one in resolved(other)]

    steps, parts = list[int | str](), [schema]
    for step in place:
        inner = [part.get("items") if isinstance(step, int) else part.get("properties", {}).get(step) for part in parts]
        found = [one for part in inner if part for one in resolved(part)]
        named = [one for one in parts if any(key.get("const") == step for key in one.get("properties", {}).values())]
        if found and not named:
            steps.append(step)
        parts = named or found or parts
    return steps, parts
