"""Fixtures for integration tests: Redis servers of all kinds.

Tests use Redis as the user that docs/redis-schema.md documents for workers, which shows that its rights are enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.redis_kinds import Authority, Cluster, Sentinels, TlsServer, add_user, as_user, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.servers import RedisServer


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    with redis_server.client() as client:
        client.flushall()
        add_user(client, "argsize", "~elsewhere:*")  # one test uses this key_prefix
    return as_user(redis_server.url, "argsize")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"), authority)
    with started(server):
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    nodes = Cluster(tmp_path_factory.mktemp("cluster"))
    with started(nodes):
        for node in nodes.nodes:
            with node.client() as client:
                add_user(client, "argsize", "+cluster|slots")
        yield nodes


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    servers = Sentinels(tmp_path_factory.mktemp("sentinels"))
    with started(servers):
        yield servers
