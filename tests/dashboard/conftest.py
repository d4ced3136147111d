"""What the tests of the page share: an app over a home in memory."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from otoscope.dashboard import create_app
from otoscope.store import MemoryHome, Store


@pytest.fixture
def home() -> MemoryHome:
    return MemoryHome()


@pytest.fixture
def store(home: MemoryHome) -> Store:
    return Store(home)


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return create_app(lambda: store).test_client()
