"""From a request to its captions: reads it, decodes its images on threads, has them captioned in batches."""

import asyncio
import math
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from os import cpu_count
from typing import Any, TypeVar

from fastapi import Request

from showtell import __version__
from showtell.captioner import Caption, Captioner
from showtell.errors import ImageError, ShowtellError
from showtell.images.decode import Pixels, box_seen, read_image, resize
from showtell.images.storage import NamedBytes
from showtell.images.urls import fetch
from showtell.search.options import SearchOptions
from showtell.serve.batching import Batcher, Job, QueueFullError
from showtell.serve.metrics import Metrics
from showtell.serve.problems import ProblemError, problem
from showtell.serve.reading import Room, Sent, read_request
from showtell.serve.schema import Asked, CaptionOut, CaptionsOut, ImageOut, LimitsOut, ModelOut, ModelsOut
from showtell.serve.settings import Settings

DECODING_THREADS = min(4, cpu_count() or 1)  # each may hold `max_pixels` of pixels
FETCHING_THREADS = 8
DIGITS = 5  # of attention and probabilities in answers

Box = tuple[float, float, float, float]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Model:
    """A captioner with its queue."""

    name: str
    captioner: Captioner
    batcher: Batcher


class Service:
    """The models and the images that wait for them; it works from `start` to `close`.

    Args:
        captioners: by the name that requests use; the first one is the default.
        settings: the limits.
    """

    def __init__(self, captioners: Mapping[str, Captioner], settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.room = Room(settings.held_bytes)
        self.models: dict[str, Model] = {}
        for name, captioner in captioners.items():
            batcher = Batcher(
                captioner,
                batch_size=settings.batch_size,
                wait=settings.wait,
                capacity=settings.queue,
                observe=partial(self.metrics.batch, name),
            )
            self.models[name] = Model(name, captioner, batcher)
            self.metrics.watch_queue(name, partial(getattr, batcher, "waiting"))

    @property
    def ready(self) -> bool:
        """Whether every model captions."""
        return all(model.batcher.alive for model in self.models.values())

    def start(self) -> None:
        self.decoding = ThreadPoolExecutor(DECODING_THREADS, "showtell-decode")
        self.fetching = ThreadPoolExecutor(FETCHING_THREADS, "showtell-fetch")
        for model in self.models.values():
            model.batcher.start()

    def close(self) -> None:
        """Finish what waits, and stop; blocks until then."""
        for model in self.models.values():
            model.batcher.close()
        self.decoding.shutdown()
        self.fetching.shutdown()

    def described(self) -> ModelsOut:
        """What clients may know about the models and the limits."""
        models = [
            ModelOut(
                name=model.name,
                about=model.captioner.config.about,
                grid=model.captioner.config.grid,
                vocabulary=len(model.captioner.tokenizer),
                options=asdict(model.captioner.config.search),
                scores=model.captioner.config.scores,
            )
            for model in self.models.values()
        ]
        limits = self.settings.model_dump(include=set(LimitsOut.model_fields))
        return ModelsOut(models=models, limits=LimitsOut(**limits), version=__version__)

    async def captions(self, request: Request) -> CaptionsOut:
        """Answer a request.

        Raises:
            ProblemError: it can't be answered.
        """
        if all(model.batcher.waiting >= self.settings.queue for model in self.models.values()):
            raise _busy(1)  # there is no need to read a request that can't be taken
        with self.room.body() as take:
            asked, sent = await read_request(request, self.settings, take)
            model = self._model(asked.model)
            try:
                options = model.captioner.options(**asked.search_options())
                if asked.min_confidence is not None:
                    model.captioner.refuse_unless_confident()
            except ShowtellError as error:
                raise ProblemError(422, str(error)) from None
            try:
                async with asyncio.timeout(self.settings.timeout):
                    images = await _unless_gone(request, self._caption(model, sent, options, asked))
            except TimeoutError:
                raise ProblemError(
                    503,
                    f"The captions were not ready within {self.settings.timeout:g} s. Try again.",
                    headers={"Retry-After": "5"},
                ) from None
        return CaptionsOut(model=model.name, options=asdict(options), images=images)

    def _model(self, name: str | None) -> Model:
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise ProblemError(422, f"There is no model '{name}'. Choose from: {', '.join(self.models)}.")
        return self.models[name]

    async def _caption(self, model: Model, sent: list[Sent], options: SearchOptions, asked: Asked) -> list[ImageOut]:
        """Each image's captions, or its problem; if all have problems, the request fails.

        Raises:
            ProblemError: the queue is full, or no image can be captioned.
        """
        try:
            model.batcher.reserve(len(sent))
        except QueueFullError as full:
            raise _busy(full.retry_after) from None
        outcomes = await asyncio.gather(
            *(self._caption_one(model, image, number, options, asked) for number, image in enumerate(sent)),
            return_exceptions=True,
        )
        images = []
        for image, outcome in zip(sent, outcomes, strict=True):
            good = not isinstance(outcome, BaseException)
            self.metrics.images.labels(model.name, "captioned" if good else "refused").inc()
            if isinstance(outcome, ShowtellError):
                outcome = ImageOut(name=image.name, problem=problem(422, str(outcome)))
            elif isinstance(outcome, BaseException):
                raise outcome
            images.append(outcome)
        if all(image.problem for image in images):
            details = [image.problem.detail for image in images if image.problem]
            raise ProblemError(422, " ".join(details[:3]) + (" ..." if len(details) > 3 else ""))
        return images

    async def _caption_one(
        self, model: Model, sent: Sent, number: int, options: SearchOptions, asked: Asked
    ) -> ImageOut:
        """One image's captions; its place in the queue is reserved.

        Raises:
            ShowtellError: it can't be fetched, read or captioned.
        """
        loop, settings, batcher = asyncio.get_running_loop(), self.settings, model.batcher
        try:
            data = sent.data
            if sent.url is not None:
                if not settings.fetch_urls:
                    raise ImageError(
                        f"{sent.name} is a URL, and this server fetches none.", "Send the file itself, in data."
                    )
                data = await loop.run_in_executor(self.fetching, fetch, sent.url, settings.max_bytes)
            assert data is not None
            picture, seen = await loop.run_in_executor(
                self.decoding, _picture, model.captioner, data, sent.name, settings.max_pixels
            )
        except BaseException:
            batcher.release()
            raise
        job = Job(picture, number, options, asked.attention)
        batcher.put(job)
        captions = await asyncio.wrap_future(job.captions)
        captions = [caption.if_at_least(asked.min_confidence or 0) for caption in captions]
        return ImageOut(name=sent.name, seen=seen, captions=[_out(caption, asked.attention) for caption in captions])


def _picture(captioner: Captioner, data: bytes, name: str, max_pixels: int) -> tuple[Pixels, Box]:
    """The image as the model sees it, and which part of the image that is."""
    preprocessing = captioner.config.preprocessing
    image = read_image(NamedBytes(data, name), max_pixels=max_pixels, at_least=preprocessing.shorter_side)
    height, width = image.shape[:2]
    left, top, right, bottom = box_seen(width, height, preprocessing)
    seen = (left / width, top / height, right / width, bottom / height)
    return resize(image, preprocessing), seen


def _out(caption: Caption, attention: bool) -> CaptionOut:
    """A caption as clients get it."""
    looked = caption.attention if attention else None
    return CaptionOut(
        text=caption.text,
        words=list(caption.words),
        probability=math.exp(caption.log_prob),
        log_prob=caption.log_prob,
        word_probabilities=[round(math.exp(each), DIGITS) for each in caption.word_log_probs],
        score=caption.score,
        confidence=None if caption.confidence is None else round(caption.confidence, DIGITS),
        left_out=caption.left_out,
        finished=caption.finished,
        attention=None if looked is None else looked.astype(float).round(DIGITS).tolist(),
    )


def _busy(seconds: int) -> ProblemError:
    return ProblemError(429, f"The queue is full. Try again in {seconds} s.", headers={"Retry-After": str(seconds)})


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client leaves.

    Raises:
        ProblemError: it left. (Nobody reads that.)
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ProblemError(400, "The client left.")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))  # then its images have left the queue
