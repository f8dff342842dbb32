"""The addresses of a server: the page, the API, health and metrics."""

import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showtell import __version__
from showtell.captioner import Captioner
from showtell.serve.controls import others, sliders
from showtell.serve.examples import Example
from showtell.serve.problems import MEDIA_TYPE, Problem, ProblemError, problem, problem_response
from showtell.serve.schema import AskedInForm, AskedInJson, CaptionsOut, ModelsOut
from showtell.serve.service import Service
from showtell.serve.settings import Settings

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NEEDS_TOKEN = ("/v1/", "/metrics")
DESCRIPTION = "Captions for photos. Errors are RFC 9457 problem details: `detail` says what is wrong and what to do."


def create_app(
    captioners: Mapping[str, Captioner], settings: Settings | None = None, examples: tuple[Example, ...] = ()
) -> FastAPI:
    """The application.

    Args:
        captioners: by name; the first one is the default.
        settings: the limits.
        examples: photos that the page offers.
    """
    settings = settings or Settings()
    service = Service(captioners, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    app = FastAPI(
        title="showtell",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.service = service
    app.add_middleware(Door, service=service, token=settings.token.get_secret_value() if settings.token else None)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    _add_api(app, service)
    _add_health(app, service)
    _add_page(app, examples)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_api(app: FastAPI, service: Service) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"description": why, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for status, why in {
            400: "The body can't be read",
            401: "The token is missing or wrong",
            403: "The request comes from a page of another site",
            408: "The body came too slowly",
            413: "Too many bytes or images",
            415: "Neither a form nor JSON",
            422: "A field is wrong, or no image can be read",
            429: "The queue is full; Retry-After says how long to wait",
            503: "The captions took too long",
        }.items()
    }
    body = {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/AskedInForm"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/AskedInJson"}},
        },
    }

    @app.post(
        "/v1/captions",
        summary="Caption images",
        response_model=CaptionsOut,
        responses=problems,
        openapi_extra={"requestBody": body},
    )
    async def captions(request: Request) -> Response:
        """One image or many, as a form or as JSON with base64.

        An image that can't be read has a `problem` in place of captions; if none can be read, the request fails.
        """
        answer = await service.captions(request)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/v1/models", summary="The models and the limits", responses={401: problems[401]})
    async def models() -> ModelsOut:
        """Which models there are, the default one first, and what a request may hold."""
        return service.described()


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        """Yes, if it answers."""
        return {"status": "alive"}

    @app.get("/readyz", summary="Is it ready to caption?", responses={503: {"description": "A model has stopped"}})
    async def readyz() -> Response:
        """Yes, if every model's thread works."""
        if not service.ready:
            raise ProblemError(503, "A model has stopped. Start the server again.")
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="Counters, for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """In Prometheus's text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, examples: tuple[Example, ...]) -> None:
    folder = files("showtell.serve") / "page"
    contents = {path: (folder.joinpath(name).read_text(encoding="utf-8"), kind) for path, (name, kind) in PAGE.items()}
    html, kind = contents["/"]
    contents["/"] = (html.replace("<!--sliders-->", sliders()).replace("<!--others-->", others()), kind)

    async def page(request: Request) -> Response:
        content, kind = contents[request.url.path]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    for path in contents:
        app.add_api_route(path, page, include_in_schema=False)

    @app.get("/examples", include_in_schema=False)
    async def listed() -> list[dict[str, str]]:
        return [{"name": each.name, "url": f"/examples/{number}"} for number, each in enumerate(examples)]

    @app.get("/examples/{number}", include_in_schema=False)
    async def example(number: str) -> Response:
        if not number.isdecimal() or int(number) >= len(examples):
            raise ProblemError(404, "There is no such example.")
        return Response(examples[int(number)].jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})


class Door:
    """What every request passes: the token, security headers, counters (ASGI middleware)."""

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self.app = app
        self.service = service
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (refusal or self.app)(scope, receive, send_with_headers)
        finally:
            path = getattr(scope.get("route"), "path", "other")  # the route's, so that paths can't become many labels
            self.service.metrics.requests.labels(path, status).inc()
            self.service.metrics.request_seconds.labels(path).observe(time.perf_counter() - begin)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not come in."""
        headers, path = Headers(scope=scope), scope["path"]
        if not path.startswith(NEEDS_TOKEN):
            return None
        if headers.get("sec-fetch-site") == "cross-site":  # only browsers send it, and a page can't remove it
            return problem_response(problem(403, "Pages of other sites may not use this server."))
        if self.token is None:
            return None
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), self.token.encode()):
            return None
        detail = "The token is missing or wrong. Send the header 'Authorization: Bearer TOKEN'."
        return problem_response(problem(401, detail), {"WWW-Authenticate": "Bearer"})


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.problem, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """What FastAPI itself finds wrong: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    details = {404: "There is nothing at this path.", 405: f"This path does not take {request.method[:20]}."}
    return problem_response(problem(error.status_code, details.get(error.status_code, error.detail)), error.headers)


async def _defect(_: Request, error: Exception) -> Response:
    """Starlette raises the error again when this is sent, and uvicorn logs where it came from."""
    return problem_response(problem(500, "The server has a bug; its log says where."))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the models that it doesn't see."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        models: Any = [(model, "validation") for model in (AskedInForm, AskedInJson, Problem)]
        _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
