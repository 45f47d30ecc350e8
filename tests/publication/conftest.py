import pytest

from tests.publication.tiny import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Trained with settled deltas; don't write to it."""
    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def project(trained, tmp_path):
    """A copy in which nothing was deleted yet."""
    return trained.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def train_method(tmp_path_factory):
    return lambda method, **changes: train(tmp_path_factory.mktemp("method"), method, **changes)
