"""moto's S3 server on loopback, with a server before it that can break requests."""

import logging
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from amnesiac.storage import Storage, open_storage
from tests.publication.tiny import Tiny, train
from tests.storage.faults import FaultyServer

VERSIONED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, int]]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def server(moto: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The environment of an S3 server whose requests a test may break."""
    with FaultyServer(moto) as faulty:
        for name, value in environment(faulty.url).items():
            monkeypatch.setenv(name, value)
        yield faulty


@pytest.fixture
def storage(server: FaultyServer) -> Storage:
    """A prefix in a new bucket."""
    return open_storage(f"s3://{new_bucket(server.url)}/team/project")


@pytest.fixture
def versioned(server: FaultyServer) -> Storage:
    """The same in a bucket that keeps what was replaced or deleted."""
    return open_storage(f"s3://{new_bucket(server.url, versioned=True)}/team/project")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny model and its ledger; don't write to it."""
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def project(trained: Tiny, tmp_path: Path) -> Tiny:
    """A copy of it."""
    return trained.copy(tmp_path / "project")


def environment(url: str) -> dict[str, str]:
    """Of a process that uses the server."""
    return {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url,
    }  # fmt: skip


def new_bucket(url: str, *, versioned: bool = False) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    _put(f"{url}/{name}", b"")
    if versioned:
        _put(f"{url}/{name}?versioning", VERSIONED)
    return name


def _put(url: str, content: bytes) -> None:
    """Without a client: building one takes a second."""
    signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"  # by which moto knows the service
    headers = {"Content-Type": "application/xml", "Authorization": signed}
    with urllib.request.urlopen(urllib.request.Request(url, content, headers, method="PUT")) as answer:
        assert answer.status == 200
