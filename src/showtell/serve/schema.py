"""What goes into `POST /v1/captions` and what comes out, with the ranges that a request may ask for."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from showtell.serve.problems import Problem

Word = Annotated[str, Field(min_length=1, max_length=100)]


class Asked(BaseModel):
    """How to caption; each search option that is left out is the model's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, max_length=200, description="which model; the first one if left out")
    attention: bool = Field(False, description="whether to say where the model looked for each word")
    beam: int | None = Field(None, ge=1, le=20, description="captions followed at a time; 1 is greedy search")
    groups: int | None = Field(None, ge=1, le=20, description="groups of the beam that say different things")
    diversity: float | None = Field(None, ge=0, le=10, description="groups: how much they avoid each other's words")
    sample: bool | None = Field(None, description="draw words at random instead of searching")
    num: int | None = Field(None, ge=1, le=20, description="captions for each image, best first")
    temperature: float | None = Field(None, ge=0.05, le=10, description="sampling: below 1 safer, above 1 bolder")
    top_k: int | None = Field(None, ge=1, le=100_000, description="sampling: draw from the k likeliest words")
    top_p: float | None = Field(
        None, gt=0, le=1, description="sampling: draw from the fewest likeliest words that reach p together"
    )
    seed: int | None = Field(None, ge=0, le=2**53 - 1, description="sampling: the same seed draws the same captions")
    length_penalty: float | None = Field(None, ge=0, le=10, description="0 favours short captions, 1 long ones")
    min_words: int | None = Field(None, ge=0, le=50, description="no caption is shorter")
    max_words: int | None = Field(None, ge=1, le=50, description="longer captions are cut")
    no_repeat_ngram: int | None = Field(
        None, ge=0, le=50, description="no run of so many words comes twice; 0: any may"
    )
    banned_words: list[Word] | None = Field(None, max_length=100, description="words that are never said")
    prefix: str | None = Field(None, max_length=500, description="words that every caption begins with")
    require: list[Word] | None = Field(None, max_length=3, description="words that every caption says; beam only")
    allow_unknown: bool | None = Field(None, description="whether `<unk>` may be said")

    def search_options(self) -> dict[str, Any]:
        """The search options that the request names."""
        return self.model_dump(exclude_none=True, exclude={"model", "attention", "images"})


class SentImage(BaseModel):
    """One image in a JSON request: `data` or `url`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(None, description="the file in base64; a data: URI is fine, too")
    url: str | None = Field(None, max_length=2000, description="where to fetch it, if this server fetches")
    name: str | None = Field(None, max_length=1000, description="what the answer and errors call it")


class AskedInJson(Asked):
    """A request in JSON."""

    images: list[SentImage] = Field(min_length=1, description="the images")


class AskedInForm(Asked):
    """A request as a form (multipart/form-data), as `curl -F images=@dog.jpg` and web pages send it."""

    images: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]] = Field(
        min_length=1, description="the files; repeat the field for more than one"
    )


class CaptionOut(BaseModel):
    """One caption of one image."""

    text: str
    words: list[str]
    probability: float = Field(description="of the whole caption, its end included")
    log_prob: float = Field(description="its natural logarithm")
    word_probabilities: list[float] = Field(description="of each word, given those before it")
    score: float = Field(description="what captions are ranked by: log_prob, normalised by length")
    finished: bool = Field(description="false when the caption was cut at max_words")
    attention: list[list[list[float]]] | None = Field(
        description="[word][row][column]: where the model looked for each word; each word's numbers sum to 1. "
        "null if it was not asked for, or the model has none"
    )


class ImageOut(BaseModel):
    """The captions of one image, or why there are none."""

    name: str = Field(description="the file's name, or its place in the request")
    captions: list[CaptionOut] | None = Field(None, description="best first")
    seen: tuple[float, float, float, float] | None = Field(
        None,
        description="the part of the image that the model sees, and attention's grid lies over: left, top, right, "
        "bottom, as shares of its width and height",
    )
    problem: Problem | None = Field(None, description="why this image has no captions")


class CaptionsOut(BaseModel):
    """The answer: one entry an image, in the order of the request."""

    model: str
    options: dict[str, Any] = Field(description="all the search options that were in force")
    images: list[ImageOut]


class ModelOut(BaseModel):
    """One model."""

    name: str
    grid: tuple[int, int] = Field(description="rows and columns of attention")
    vocabulary: int = Field(description="how many words it knows")
    options: dict[str, Any] = Field(description="its own search options")
    scores: dict[str, float] = Field(description="of generated captions on the validation split")


class LimitsOut(BaseModel):
    """What one request may hold."""

    max_bytes: int
    max_pixels: int
    max_images: int
    fetch_urls: bool


class ModelsOut(BaseModel):
    """The models, the first one first, and the limits."""

    models: list[ModelOut]
    limits: LimitsOut
    version: str = Field(description="of showtell")
