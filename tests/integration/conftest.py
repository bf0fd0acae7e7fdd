"""Integration tests run as the user that docs/redis-schema.md has for workers: so its rights are known to suffice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis_kinds import add_user, as_user

if TYPE_CHECKING:
    from support import RedisServer


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    with redis_server.client() as client:
        client.flushall()
        add_user(client, "argsize", "~elsewhere:*")  # the other key_prefix that a test has
    return as_user(redis_server.url, "argsize")
