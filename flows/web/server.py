"""The server of the status page: a thread beside whatever else the process does, for as long as a block lasts."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from amnesiac.errors import InputError
from flows.web.app import build_app
from flows.web.gate import TOKEN_VARIABLE, Gate, is_loopback

_START_SECONDS = 30.0
_log = logging.getLogger("amnesiac.web")


@contextmanager
def status_page(host: str, port: int, token: str | None, prefect_url: str | None = None) -> Iterator[str]:
    """Serve the page in the block; yields its URL. Port 0 takes a free one.

    Raises InputError where a host that others can reach comes without a token, or can't be listened on.
    """
    if token is None and not is_loopback(host):
        raise InputError(
            f"{host} can be reached from other machines, and the status page has no token: set {TOKEN_VARIABLE} or "
            "--token-file, or bind it to 127.0.0.1"
        )
    gate = Gate(token)
    with _listening(host, port) as listener:
        bound = int(listener.getsockname()[1])
        app = build_app(gate, host, prefect_url if is_loopback(host) else None)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        with _running(uvicorn.Server(config), listener):
            yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise InputError(f"the status page can't listen on {host}, port {port}: {error}. Choose others") from error
        yield listener
    finally:
        listener.close()


@contextmanager
def _running(server: uvicorn.Server, listener: socket.socket) -> Iterator[None]:
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="status page", daemon=True)
    thread.start()
    end = time.monotonic() + _START_SECONDS
    while thread.is_alive() and not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)
        if thread.is_alive():
            _log.error("the status page's server didn't end within %.0f s", _START_SECONDS)
