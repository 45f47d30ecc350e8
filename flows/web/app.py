"""The status page as an ASGI application. It reads, and nothing that a visitor sends can change anything here."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amnesiac.errors import AmnesiacError
from amnesiac.pages import asset, render_login, render_problem, render_status
from flows.web.gate import COOKIE, DOCUMENT_POLICY, HEADERS, SESSION_SECONDS, Gate

_OPEN = frozenset({"/login", "/status.css"})
_LARGEST_FORM = 4096
_SUFFIXES = {"html": "text/html", "md": "text/markdown", "json": "application/json"}
Answer = Callable[[Request], Awaitable[Response]]


def build_app(gate: Gate, bound: str = "127.0.0.1", prefect_url: str | None = None, tls: bool = False) -> Starlette:
    """The application for the project that `tasks.catalog.catalog` finds.

    bound:       the host that it listens on;  prefect_url: of a dashboard that visitors can open
    tls:         whether it is served over HTTPS, so that the cookie is kept to that
    """
    routes = [
        Route("/", _status_page(gate, prefect_url), methods=["GET"]),
        Route("/api/status", _status_json, methods=["GET"]),
        Route("/reports/{number:int}", _report, methods=["GET"]),
        Route("/reports/{number:int}.{suffix}", _report, methods=["GET"]),
        Route("/receipts/{number:int}", _receipt_page, methods=["GET"]),
        Route("/receipts/{number:int}.json", _receipt_file, methods=["GET"]),
        Route("/status.css", _asset("status.css", "text/css"), methods=["GET"]),
        Route("/status.js", _asset("status.js", "text/javascript"), methods=["GET"]),
        Route("/login", _login_form(gate), methods=["GET"]),
        Route("/login", _log_in(gate, tls), methods=["POST"]),
        Route("/logout", _log_out, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_problem, AmnesiacError: _data_problem}
    return Starlette(
        routes=routes, middleware=[Middleware(_Guard, gate=gate, bound=bound)], exception_handlers=handlers
    )


class _Guard:
    """Refuses what isn't for us, asks for the token, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, gate: Gate, bound: str) -> None:
        self._app, self._gate, self._bound = app, gate, bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        answer = self._refusal(request)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        if not self._gate.knows(request.headers.get("host", ""), self._bound):
            return HTMLResponse(render_problem("Unknown host", "This server doesn't answer to that name."), 421)
        if request.method == "POST" and not _from_here(request):
            return HTMLResponse(render_problem("Refused", "The form was sent from another site."), 403)
        if request.url.path in _OPEN or self._gate.admits(dict(request.headers)):
            return None
        if request.url.path.startswith("/api/"):
            said = {"error": "send the token: Authorization: Bearer TOKEN"}
            return JSONResponse(said, 401, {"WWW-Authenticate": "Bearer"})
        return RedirectResponse("/login", 303)


def _from_here(request: Request) -> bool:
    """Whether a form was sent from one of our own pages, as browsers tell."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message["headers"], *((name, value) for name, value in more if name not in given)]
        await send(message)

    return sending


def _status_page(gate: Gate, prefect_url: str | None) -> Callable[[Request], Response]:
    def status(request: Request) -> Response:
        from tasks.overview import overview

        return HTMLResponse(render_status(overview(), prefect_url=prefect_url, sign_out=gate.closed))

    return status


def _status_json(request: Request) -> Response:
    from tasks.overview import overview

    return JSONResponse(overview())


def _report(request: Request) -> Response:
    from tasks.archiving import archived_report

    suffix = request.path_params.get("suffix", "html")
    found = archived_report(request.path_params["number"], suffix) if suffix in _SUFFIXES else None
    if found is None:
        raise HTTPException(404, "There is no such report. It may be of a batch that was published unevaluated.")
    return _document(found, _SUFFIXES[suffix])


def _receipt_page(request: Request) -> Response:
    from amnesiac.receipts import as_page

    return _document(as_page(_receipt(request).signed).encode(), "text/html")


def _receipt_file(request: Request) -> Response:
    return _document(_receipt(request).path.read_bytes(), "application/json")


def _receipt(request: Request) -> Any:
    from amnesiac.receipts import Chain
    from tasks.catalog import catalog

    chain, number = Chain(catalog().receipts), request.path_params["number"]
    if number not in chain.numbers():
        raise HTTPException(404, "There is no such receipt.")
    return chain.read(number)


def _document(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Security-Policy": DOCUMENT_POLICY})


def _asset(name: Any, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(asset(name), media_type=kind)


def _login_form(gate: Gate) -> Callable[[Request], Response]:
    return lambda request: HTMLResponse(render_login()) if gate.closed else RedirectResponse("/", 303)


def _log_in(gate: Gate, tls: bool) -> Answer:
    async def log_in(request: Request) -> Response:
        if not gate.fits(await _given_token(request)):
            return HTMLResponse(render_login(failed=True), 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, gate.session(), max_age=SESSION_SECONDS, path="/", secure=tls, httponly=True, samesite="strict"
        )
        return answer

    return log_in


async def _log_out(request: Request) -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


async def _given_token(request: Request) -> str:
    """Of a form, of which no more is read than a token can be long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "That is too long for a token.")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("token", [""])[0]


async def _http_problem(request: Request, error: HTTPException) -> Response:
    titles = {404: "Not found", 405: "Only GET and HEAD", 413: "Too large"}
    return _problem(request, error.status_code, titles.get(error.status_code, "Refused"), str(error.detail))


async def _data_problem(request: Request, error: AmnesiacError) -> Response:
    """What is wrong on disk, without a message that may name people."""
    hidden = f"{type(error).__name__}: the message may name samples. Run `amnesiac status`, which shows it."
    return _problem(request, 500, "The project's data can't be read", hidden if error.names_samples else str(error))


def _problem(request: Request, code: int, title: str, message: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, code)
    return HTMLResponse(render_problem(title, message), code)
