"""Routes for logging in, and for the caller's own token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from hpcpanda.dispatcher.context import Anyone, Context, ContextDep, Known
from hpcpanda.dispatcher.identity.door import SESSION_COOKIE, address_of
from hpcpanda.dispatcher.identity.weblogin import (
    LOGIN_SECONDS,
    SESSION_SECONDS,
    Returned,
    WebLogin,
    open_session,
)
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.usecases.tokens import end_session, rotate_token
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.identity import IdentityProvider, NewToken, WhoAmI

router = APIRouter(prefix="/v1/auth", tags=["identity"], route_class=StrictJsonRoute)

LOGIN_COOKIE = "hpcpanda_login"

Short = Annotated[str, Query(min_length=1, max_length=2048)]
Perhaps = Annotated[str | None, Query(max_length=2048)]


@router.get("/provider")
async def provider(_: Anyone, context: ContextDep) -> IdentityProvider:
    """Tell the command line where to log in."""
    if context.identity.device is None:
        raise NotFound("nobody logs in at this dispatcher with a command line; use a token file")
    return context.identity.device


@router.get("/login", status_code=302, response_class=RedirectResponse)
async def login(_: Anyone, context: ContextDep, next: Short = "/") -> Response:  # noqa: A002 - its name in URLs
    """Send a browser to the identity provider."""
    web = _web(context)
    started = await web.start(context.store.writing(), next_path=next, now=context.clock())
    answer = RedirectResponse(started.url, 302, {"Cache-Control": "no-store"})
    _set(answer, web, LOGIN_COOKIE, started.state, path="/v1/auth", seconds=LOGIN_SECONDS)
    return answer


@router.get("/callback", status_code=302, response_class=RedirectResponse)
async def callback(
    _: Anyone,
    context: ContextDep,
    request: Request,
    state: Short,
    code: Perhaps = None,
    error: Perhaps = None,
    iss: Perhaps = None,
) -> Response:
    """Take a browser back from the identity provider, and log it in."""
    web = _web(context)
    cookie = request.cookies.get(LOGIN_COOKIE, "")
    returned = Returned(state=state, cookie=cookie, code=code, error=error, issuer=iss)
    begun = await web.take(context.store.writing(), returned, now=context.clock())
    principal = await web.claim(begun, returned, now=context.clock())
    token = await open_session(
        context.store.writing(), principal, address=address_of(request), now=context.clock()
    )
    answer = RedirectResponse(begun.next, 302, {"Cache-Control": "no-store"})
    answer.delete_cookie(LOGIN_COOKIE, path="/v1/auth")
    _set(answer, web, SESSION_COOKIE, token, path="/", seconds=SESSION_SECONDS)
    return answer


@router.post("/logout", status_code=204)
async def logout(caller: Known, context: ContextDep) -> Response:
    """Log a browser out."""
    await end_session(context.store.writing(), caller=caller)
    context.identity.bearers.forget(caller.digest)
    answer = Response(status_code=204)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


@router.get("/whoami")
async def whoami(caller: Known, context: ContextDep) -> WhoAmI:
    """Tell callers who they are here."""
    return WhoAmI(
        name=caller.name,
        is_edge=caller.is_edge,
        scopes=tuple(sorted(caller.scopes)),
        groups=tuple(sorted(caller.groups)),
        sees_all=caller.sight is None,
        created=caller.created,
        expires=caller.expires,
        now=context.clock(),
    )


@router.post("/rotate")
async def rotate(caller: Known, context: ContextDep) -> NewToken:
    """Exchange a token of the dispatcher's own for a new one."""
    changed = await rotate_token(
        context.store.writing(),
        caller=caller,
        lifetime_s=context.identity.token_seconds,
        overlap_s=context.identity.overlap_seconds,
        now=context.clock(),
    )
    context.identity.bearers.forget()
    return changed


def _web(context: Context) -> WebLogin:
    if context.identity.web is None:
        raise NotFound(
            "nobody logs in at this dispatcher with a browser; use a token file, or 'hpcpanda login'"
        )
    return context.identity.web


def _set(answer: Response, web: WebLogin, name: str, value: str, *, path: str, seconds: float) -> None:
    answer.set_cookie(
        name, value, max_age=int(seconds), path=path, secure=web.secure, httponly=True, samesite="lax"
    )
