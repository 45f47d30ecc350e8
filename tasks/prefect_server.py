"""One local Prefect server for a process and its children: started, found again, and ended by process id.

Without a server every process starts an ephemeral one of its own: 5 s each time, 11 s with an empty database. A
standing server costs 4 s once (10-13 s with an empty database). Importing this module doesn't import Prefect.
"""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import URLError
from urllib.parse import urlsplit

from amnesiac.durable import write_json
from amnesiac.errors import AmnesiacError
from tasks.prefect_environment import NO_FOREIGN_ORIGIN

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ORIGINS = "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"
_LOG_LINES = 15
_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")  # in the database's address
_POLL_SECONDS = 0.1
_STOP_SECONDS = 15.0


class ServerError(AmnesiacError):
    """The Prefect server can't be started or doesn't answer."""


@contextmanager
def local_server(port: int = 4200, host: str = "127.0.0.1", start_timeout: float = 180.0) -> Iterator[str]:
    """Yield the API's URL of a server that answers, and point this process and its children to it.

    Connects where PREFECT_API_URL names a server or another process of this project runs one (see `running_server`);
    starts one otherwise, in a process group of its own, and ends it on exit, on Ctrl-C and on SIGTERM. After SIGKILL
    the server stays and is found again by the next call.
    Raises ServerError when PREFECT_API_URL doesn't answer, the port is taken or the server doesn't come up, or when
    `host` can be reached from other machines and no password is set (PREFECT_SERVER_API_AUTH_STRING).
    """
    url = running_server()
    if url is not None:
        with connected(url):
            yield url
        return
    with _sigterm_unwinds(), _started(host, port, start_timeout) as url, connected(url):
        yield url


def running_server() -> str | None:
    """Return the API's URL of the server to use: PREFECT_API_URL, else the one this project has started, else None.

    Raises ServerError when PREFECT_API_URL is set and nothing answers there.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given and not _answers(given):
        raise ServerError(f"PREFECT_API_URL is {given}, but nothing answers there: start that server or unset it")
    return given or _recorded()


def needed_server() -> str:
    """The same for what can't start a server itself; raises ServerError where there is none."""
    url = running_server()
    if url is None:
        raise ServerError(
            "no Prefect server is known here: set PREFECT_API_URL=http://HOST:4200/api, or start one for this project "
            "with `amnesiac dashboard`"
        )
    return url


@contextmanager
def connected(url: str) -> Iterator[None]:
    """Point this process (also where Prefect was imported before) and its children to the server at `url`."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield
            finally:
                _send_logs()
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        if before is not None:
            os.environ["PREFECT_API_URL"] = before


def _send_logs() -> None:
    """Prefect sends logs every 2 s: what is left must be gone before the server is."""
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on at the moment (another process may take it at any time)."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _started(host: str, port: int, timeout: float) -> Iterator[str]:
    _refuse_open_door(host)
    _refuse_taken_port(host, port)
    home = _home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/api"
    log, record = home / "server.log", home / "server.json"
    process = _launch(host, port, url, log)
    try:
        _await_health(process, url, log, timeout)
        write_json(record, {"api_url": url, "pid": process.pid})
        yield url
    finally:
        record.unlink(missing_ok=True)
        _end(process)


def _launch(host: str, port: int, url: str, log: Path) -> subprocess.Popen[bytes]:
    # the dashboard calls port 4200 unless the server's own environment says where its API is
    environment = {"PREFECT_UI_API_URL": url, **os.environ, "PREFECT_API_URL": url}
    if environment.get(_ORIGINS, NO_FOREIGN_ORIGIN) == NO_FOREIGN_ORIGIN:  # else the user has set it
        environment[_ORIGINS] = _allowed_origins(url, port)
    # -P: the working folder's packages must not shadow those that the server imports
    command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _await_health(process: subprocess.Popen[bytes], url: str, log: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended with exit code {process.returncode}. {_tail(log)}")
        if _answers(url):
            return
        time.sleep(_POLL_SECONDS)
    raise ServerError(
        f"the Prefect server didn't answer at {url}/health within {timeout:g} s: give it more time, or mend what "
        f"its log says. {_tail(log)}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group: politely first, and whatever is left of it by force."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    _signal_group(process.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # all of it has ended


def _refuse_open_door(host: str) -> None:
    if host not in _LOOPBACK and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise ServerError(
            f"a Prefect server on {host} can be reached from other machines, and whoever reaches it may run and read "
            "everything: set PREFECT_SERVER_API_AUTH_STRING=user:password in the environment (and put TLS before it), "
            "or leave it on 127.0.0.1"
        )


def _allowed_origins(url: str, port: int) -> str:
    """The dashboard's own: it may be opened as localhost, and calls its API as 127.0.0.1."""
    here = urlsplit(url)
    return ",".join(dict.fromkeys([f"{here.scheme}://{here.netloc}", f"http://localhost:{port}"]))


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: TIME_WAIT isn't taken
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServerError(
                f"port {port} on {host} can't be used ({error.strerror}): choose another port, or, if a Prefect server "
                f"listens there, set PREFECT_API_URL=http://{host}:{port}/api"
            ) from error


def _recorded() -> str | None:
    record = _home() / "server.json"
    if not record.exists():
        return None
    server = json.loads(record.read_text())
    url = str(server["api_url"])
    # a record that outlived its server may name a port where another project's server answers by now
    return url if _is_alive(int(server["pid"])) and _answers(url) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # ended, or the number is somebody else's by now
        return False
    return True


def _answers(url: str) -> bool:
    loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost")
    proxies = [urllib.request.ProxyHandler({})] if loopback else []  # a proxy can't reach this machine's loopback
    try:
        with urllib.request.build_opener(*proxies).open(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def _home() -> Path:
    home = os.environ.get("PREFECT_HOME")
    if home is None:
        raise ServerError("PREFECT_HOME isn't set: call tasks.prefect_environment.configure(project) first")
    return Path(home)


def _tail(log: Path) -> str:
    lines = _PASSWORD.sub(r"\1***@", log.read_text(errors="replace")).splitlines()[-_LOG_LINES:]
    return "\n".join([f"Last lines of {log}:", *lines])


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM's default ends the process without running `finally`, which would leave the server behind."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
