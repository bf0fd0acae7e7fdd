"""Fixtures for all tests: a clean environment, a Redis and a RabbitMQ for the whole session, and scenes on them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from support.scene import Scene
from support.servers import RabbitServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# No deadlines for examples of hypothesis: how long they take depends on the machine.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        ours = name.startswith(("CELERY_", "REDIS_", "REQUIRE_REDIS_", "DJANGO_", "_CELERY_ARGSIZE_")) or name == "APP"
        if ours and name != "CELERY_ARGSIZE_PURE":  # what `make test-pure` starts is pure as well
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """Forget the tasks that a test makes. Otherwise Celery would add them to the apps of other tests too."""
    state: Any = import_module("celery._state")
    before = {*state._on_app_finalizers}
    yield
    state._on_app_finalizers.intersection_update(before)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the session's Redis, emptied."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    server = RabbitServer(tmp_path_factory.mktemp("rabbit"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def amqp_scene(rabbit: RabbitServer, tmp_path: Path) -> Scene:
    """A scene with RabbitMQ as the broker and no result backend."""
    return Scene(tmp_path, rabbit.url, None)


@pytest.fixture
def scene(tmp_path: Path, redis_url: str) -> Scene:
    """A scene with Redis as the broker and the result backend."""
    return Scene(tmp_path, redis_url, redis_url)
