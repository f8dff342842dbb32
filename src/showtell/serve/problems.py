"""Errors as a client sees them: RFC 9457 problem details, one sentence each."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="its name, with its place if it is in a list: `images.0.data`")
    detail: str = Field(description="one sentence")


class Problem(BaseModel):
    """RFC 9457 problem details; `type` is left out, which means that `status` says what kind it is."""

    title: str = Field(description="the name of the status")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what is wrong, and what to do")
    errors: list[FieldProblem] | None = Field(None, description="field by field, where fields are wrong")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem(status, detail, errors)
        self.headers = dict(headers or {})


def problem(status: int, detail: str, errors: list[FieldProblem] | None = None) -> Problem:
    """The problem with its status's own title."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)


def problem_response(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells a client of a problem."""
    content = found.model_dump_json(exclude_none=True)
    return Response(content, found.status, dict(headers or {}), media_type=MEDIA_TYPE)


def invalid(error: ValidationError) -> ProblemError:
    """What pydantic finds wrong with a request's fields, in sentences."""
    errors = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(map(str, found["loc"])) or "body"
        errors.append(FieldProblem(field=place, detail=f"{found['msg'].rstrip('.')}."))
    detail = " ".join(f"{each.field}: {each.detail}" for each in errors[:3])
    more = f" And {len(errors) - 3} more." if len(errors) > 3 else ""
    malformed = any(found["type"] == "json_invalid" for found in error.errors(include_url=False))
    return ProblemError(400 if malformed else 422, detail + more, errors=errors)
