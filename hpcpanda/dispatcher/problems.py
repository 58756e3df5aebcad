"""Errors as HTTP answers: one table from code to status, RFC 9457 bodies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, TooManyRequests
from hpcpanda.domain.exchange import Problem

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[str, int] = {
    "error": 500,
    "invalid-value": 422,
    "not-found": 404,
    "illegal-transition": 409,
    "conflict": 409,
    "unauthenticated": 401,
    "forbidden": 403,
    "edge-name-taken": 409,
    "lease-lost": 409,
    "too-large": 413,
    "unavailable": 503,
    "too-many-requests": 429,
    "corrupt-data": 500,
    "merge-failed": 500,
    "payload-failed": 500,
    "scheduler-failed": 502,
}
"""HTTP status of every error code."""

RETRY_AFTER_SECONDS = 2
"""When a client may try again that was told that the service is not available."""

_HEADERS: Mapping[int, Mapping[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_SECONDS)},
}
_CODE_OF_STATUS = {401: "unauthenticated", 403: "forbidden", 404: "not-found", 413: "too-large"}
_PROBLEM: TypeAdapter[Problem] = TypeAdapter(Problem)
_log = structlog.get_logger(__name__)


def problem_response(
    code: str, detail: str, *, errors: tuple[str, ...] = (), status: int | None = None
) -> Response:
    """An answer that says what is wrong."""
    status = status or STATUS[code]
    problem = Problem(
        type=f"urn:hpcpanda:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=errors,
    )
    headers = _HEADERS.get(status)
    return Response(_PROBLEM.dump_json(problem), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let the app answer every error as a problem."""
    app.add_exception_handler(HpcPandaError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


def error_response(request: Request, error: HpcPandaError) -> Response:
    """An answer that tells of an error that was raised on purpose."""
    if STATUS[error.code] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request.failed", path=request.url.path, code=error.code, error=str(error))
    errors = (str(error),) if isinstance(error, InvalidValue) else ()
    response = problem_response(error.code, str(error), errors=errors)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return response


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HpcPandaError)
    return error_response(request, error)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    listed = [{**each, "loc": each["loc"][1:]} for each in error.errors()]
    lines = field_errors(listed)
    return problem_response("invalid-value", "; ".join(lines), errors=tuple(lines))


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "invalid-value")
    response = problem_response(code, str(error.detail), status=error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _on_defect(request: Request, error: Exception) -> Response:
    _log.error("request.defect", method=request.method, path=request.url.path, exc_info=error)
    return problem_response("error", "the dispatcher failed on this request; its log says more")
