"""A request's body as images and options: JSON or a form, within bounds, in memory only."""

import asyncio
import base64
import binascii
import codecs
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from showtell.search.options import declared
from showtell.serve.problems import FieldProblem, ProblemError, invalid
from showtell.serve.schema import Asked, AskedInJson, SentImage
from showtell.serve.settings import Settings

JSON, FORM = "application/json", "multipart/form-data"
FILE_FIELD = re.compile(r"(images?|files?)(\[\d*\])?")  # `images` is ours, the others are common in clients
LISTS = tuple(name for name, kind, option in declared() if kind is str and not option.text)
MAX_FIELDS, MAX_FIELD_BYTES = 300, 64 * 1024
LONGEST_NAME = 100


@dataclass(frozen=True)
class Sent:
    """One image of a request: its file, or the URL where it is."""

    name: str
    data: bytes | None = None
    url: str | None = None


class Room:
    """Counts the bytes of all bodies that are held at a time, so that they can't fill the memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with the number of bytes of each chunk; they are given back at the end.

        The function raises ProblemError when there is no room.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.held + count > self.limit:
                raise ProblemError(
                    429, "The server holds as many uploads as it can. Try again.", headers={"Retry-After": "1"}
                )
            taken += count
            self.held += count

        try:
            yield take
        finally:
            self.held -= taken


async def read_request(request: Request, settings: Settings, take: Callable[[int], None]) -> tuple[Asked, list[Sent]]:
    """How to caption, and what.

    Raises:
        ProblemError: the body is too large or too slow, or is not what it should be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, FORM):
        raise ProblemError(
            415, f"The content type is {kind or 'missing'}; send {FORM} (curl -F images=@FILE) or {JSON}."
        )
    for name in request.query_params:
        detail = "Send options in the body, not in the URL."
        raise ProblemError(422, f"{name}: {detail}", errors=[FieldProblem(field=name, detail=detail)])
    try:
        async with asyncio.timeout(settings.timeout):
            stream = _bounded(request, settings.max_bytes, take)
            if kind == FORM:
                asked, sent = _of_form(await _form(request, stream, settings))
            else:
                body = b"".join([chunk async for chunk in stream])
                asked, sent = await asyncio.to_thread(_of_json, body)
    except TimeoutError:
        raise ProblemError(
            408, f"The body did not arrive within {settings.timeout:g} s.", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ProblemError(400, "The body was cut off.") from None
    limit = min(settings.max_images, settings.queue)  # "Try again" would not help what never fits
    if len(sent) > limit:
        raise ProblemError(413, f"The request has {len(sent)} images; the limit is {limit}.")
    return asked, sent


async def _bounded(request: Request, limit: int, take: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """The body's chunks, as long as they are within the limits."""
    too_large = ProblemError(
        413,
        f"The body is larger than {_mebibytes(limit)}. Send smaller or fewer images.",
        headers={"Connection": "close"},
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        take(len(chunk))
        yield chunk


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.3g} MiB"


async def _form(request: Request, stream: AsyncGenerator[bytes, None], settings: Settings) -> FormData:
    """The fields of a form; its files stay in memory (by itself, Starlette would write large ones to disk)."""
    parser = MultiPartParser(
        request.headers,
        stream,
        max_files=settings.max_images,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = settings.max_bytes + 1
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise ProblemError(413, f"The request has over {settings.max_images} images, which is the limit.") from None
        raise ProblemError(400, f"The form can't be read: {error.message}") from None
    except FormParserError as error:  # Starlette before 1.0 lets it pass
        raise ProblemError(400, f"The form can't be read: {error}".rstrip(".") + ".") from None


def _of_form(form: FormData) -> tuple[Asked, list[Sent]]:
    """What a form asks for."""
    sent: list[Sent] = []
    fields: dict[str, str] = {}
    lists: dict[str, list[str]] = {name: [] for name in LISTS}
    for name, value in form.multi_items():
        is_file_field = FILE_FIELD.fullmatch(name) is not None
        if isinstance(value, UploadFile) != is_file_field:
            detail = "Send it as a file:" if is_file_field else "Send files in the field images:"
            detail += " curl -F images=@FILE."
            raise ProblemError(422, f"{name}: {detail}", errors=[FieldProblem(field=name, detail=detail)])
        if isinstance(value, UploadFile):
            sent.append(Sent(shown_name(value.filename, len(sent)), value.file.read()))
        elif name in LISTS:
            lists[name].append(value)
        else:
            fields[name] = value
    if not sent:
        detail = "There is none. Send files: curl -F images=@FILE."
        raise ProblemError(422, f"images: {detail}", errors=[FieldProblem(field="images", detail=detail)])
    try:
        words = {name: value for name, value in lists.items() if value}
        return Asked.model_validate({**fields, **words}), sent
    except ValidationError as error:
        raise invalid(error) from None


def _of_json(body: bytes) -> tuple[Asked, list[Sent]]:
    """What a JSON body asks for."""
    try:
        asked = AskedInJson.model_validate_json(body.removeprefix(codecs.BOM_UTF8), strict=True)
    except ValidationError as error:
        raise invalid(error) from None
    return asked, [_sent(image, place) for place, image in enumerate(asked.images)]


def _sent(image: SentImage, place: int) -> Sent:
    """One image of a JSON body."""
    field = f"images.{place}"
    if (image.data is None) == (image.url is None):
        detail = "Give either data or url."
        raise ProblemError(422, f"{field}: {detail}", errors=[FieldProblem(field=field, detail=detail)])
    if image.url is not None:
        return Sent(shown_name(image.name or image.url.partition("?")[0], place), url=image.url)
    assert image.data is not None
    text = image.data.partition(",")[2] if image.data.startswith("data:") else image.data
    try:
        # Many tools break it into lines; the alphabet for URLs has - and _.
        standard = "".join(text.split()).replace("-", "+").replace("_", "/")
        return Sent(shown_name(image.name, place), base64.b64decode(standard, validate=True))
    except (binascii.Error, ValueError):
        detail = "This is not base64."
        raise ProblemError(
            422, f"{field}.data: {detail}", errors=[FieldProblem(field=f"{field}.data", detail=detail)]
        ) from None


def shown_name(name: str | None, place: int) -> str:
    """The name of an image in answers: the last part of its file's name, made printable; else its place."""
    last = re.split(r"[/\\]", name or "")[-1]
    shown = "".join(c if c.isprintable() else "?" for c in last).strip()
    if len(shown) > LONGEST_NAME:
        shown = f"{shown[: LONGEST_NAME - 20]}…{shown[-19:]}"
    return shown if shown.strip(".") else f"image {place + 1}"
