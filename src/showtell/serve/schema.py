"""What goes into `POST /v1/captions` and what comes out, with the ranges that a request may ask for."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from showtell.search.options import declared
from showtell.serve.problems import Problem

Word = Annotated[str, Field(min_length=1, max_length=100)]
Request = TypeVar("Request", bound=BaseModel)


def takes_search_options(request: type[Request]) -> type[Request]:
    """Give a request a field for each search option, with the range that a server takes."""
    options: dict[str, Any] = {}
    for name, kind, option in declared():
        least, most = option.served or (option.ge, option.le)
        limits: dict[str, Any] = {}
        asked: Any = kind
        if kind is str:
            asked, limits = str if option.text else list[Word], {"max_length": most}
        elif kind is not bool:
            limits = {"ge": least, "le": most} if option.served or option.gt is None else {"gt": option.gt, "le": most}
        options[name] = (asked | None, Field(None, description=option.help, **limits))
    model: type[Request] = create_model(request.__name__, __base__=request, __module__=request.__module__, **options)
    model.__doc__ = request.__doc__
    return model


@takes_search_options
class Asked(BaseModel):
    """How to caption; for search options that are left out, the model's own hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, max_length=200, description="which model; the first one if left out")
    attention: bool = Field(False, description="whether to say where the model looked for each word")
    min_confidence: float | None = Field(None, ge=0, le=1, description="captions with a lower confidence have no words")

    def search_options(self) -> dict[str, Any]:
        """The search options that the request names."""
        return self.model_dump(exclude_none=True, exclude={"model", "attention", "min_confidence", "images"})


class SentImage(BaseModel):
    """One image in a JSON request: `data` or `url`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(None, description="the file in base64; a data: URI is fine, too")
    url: str | None = Field(None, max_length=2000, description="where to fetch it, if this server fetches")
    name: str | None = Field(None, max_length=1000, description="what the answer and errors call it")


class AskedInJson(Asked):
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
    confidence: float | None = Field(description="the chance that it is right, 0..1; null if the model can't tell")
    left_out: str | None = Field(None, description="why it has no words: its confidence is below min_confidence")
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
        description="the part of the image that the model sees, on which attention's grid lies: left, top, right, "
        "bottom, as shares of its width and height",
    )
    problem: Problem | None = Field(None, description="why this image has no captions")


class CaptionsOut(BaseModel):
    """The answer: one entry an image, in the order of the request."""

    model: str
    options: dict[str, Any] = Field(description="all search options that were used")
    images: list[ImageOut]


class ModelOut(BaseModel):
    name: str
    about: str = Field(description="what it is good at; may be empty")
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
