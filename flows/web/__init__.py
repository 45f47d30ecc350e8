"""The read-only status page: an ASGI application, who may see it, and the server that runs it beside a schedule."""

from flows.web.app import build_app
from flows.web.gate import Gate, read_token
from flows.web.server import status_page

__all__ = ["Gate", "build_app", "read_token", "status_page"]
