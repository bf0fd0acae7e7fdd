"""Fixtures that every layer shares: a clean environment, one Redis for the session and empty for each test."""

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


# How long an example takes says something of the machine, not of the code.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("CELERY_", "REDIS_", "REQUIRE_REDIS_", "DJANGO_")) or name in {
            "APP",
            "_CELERY_ARGSIZE_HANDOFF",
        }:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """A task that a test makes is no task of the apps of other tests: Celery shares tasks among all apps."""
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
    return Scene(tmp_path, rabbit.url, None)


@pytest.fixture
def scene(tmp_path: Path, redis_url: str) -> Scene:
    return Scene(tmp_path, redis_url, redis_url)
