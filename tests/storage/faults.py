"""A real server between client and S3 that breaks every k-th request, by count and so always in the same place."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["none", "kill", "lose the answer", "cut", "slow down", "refuse"]
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class FaultyServer:
    """`plan` says what happens to the n-th request (from 1) of a method; `seen` is what came and what was done to it.

    kill: closed before it is passed on;  lose the answer: passed on, then closed;  cut: half of the answer's body
    """

    target: tuple[str, int]
    plan: Callable[[int, str, str], Fault] = lambda n, method, path: "none"
    seen: list[tuple[str, str, Fault, int]] = field(default_factory=list)

    def __enter__(self) -> "FaultyServer":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def faults(self) -> list[Fault]:
        """What was broken."""
        return [fault for _, _, fault, _ in self.seen if fault != "none"]

    def begin(self, plan: Callable[[int, str, str], Fault] | None = None) -> None:
        """Count from the beginning, perhaps with another plan."""
        self.seen.clear()
        self.plan = plan or (lambda n, method, path: "none")

    def take(self, method: str, path: str) -> int:
        with self._lock:
            self.seen.append((method, path, "none", 0))
            number = len(self.seen) - 1
        fault = self.plan(number + 1, method, path)  # which may itself send requests
        self.seen[number] = (method, path, fault, 0)
        return number

    def sent(self, number: int, size: int) -> None:
        with self._lock:
            self.seen[number] = (*self.seen[number][:3], size)


def every(k: int, *faults: Fault) -> Callable[[int, str, str], Fault]:
    """Each k-th request meets the next of these faults in turn."""
    return lambda n, method, path: faults[(n // k - 1) % len(faults)] if n % k == 0 else "none"


def _handler(faulty: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            number = faulty.take(self.command, self.path)
            fault = faulty.seen[number][2]
            if fault == "slow down":
                self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
            elif fault == "refuse":
                self._answer(403, [("Content-Type", "application/xml")], DENIED)
            elif fault == "kill":
                self._close()
            else:
                self._forward(number, fault, body)

        def _forward(self, number: int, fault: Fault, body: bytes) -> None:
            to = http.client.HTTPConnection(*faulty.target, timeout=60)
            to.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = to.getresponse()
            content = answer.read()
            to.close()
            if fault == "lose the answer":
                self._close()
                return
            faulty.sent(number, len(content))
            self._answer(answer.status, answer.getheaders(), content, fault == "cut")

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            length = next((v for k, v in headers if k.lower() == "content-length"), str(len(content)))
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.wfile.flush()
            if cut:
                self._close()

        def _close(self) -> None:
            self.close_connection = True
            self.connection.shutdown(2)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
