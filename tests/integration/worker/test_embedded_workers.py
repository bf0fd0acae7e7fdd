"""Workers that run one after another in one process, as in the test suites of users and in scripts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.servers import RedisServer

CODE = """
    import sys
    from celery import Celery
    from celery.contrib.testing.worker import start_worker
    import celery_argsize

    pools, url = sys.argv[1].split(), sys.argv[2]
    app = Celery("embedded", broker=url, backend=url)
    celery_argsize.install(app, flush_interval=0.1)

    @app.task(name="embedded.echo")
    def echo(word):
        return word

    for pool in pools:
        with start_worker(app, pool=pool, concurrency=2, perform_ping_check=False, loglevel="ERROR"):
            assert [echo.delay("x" * number).get(timeout=20) for number in range(3)] == ["", "x", "xx"]
    celery_argsize.uninstall(app)
    print(celery_argsize.get_size_summary(app).total_tasks)
"""


@pytest.mark.parametrize("pools", ["solo solo solo", "threads threads", "prefork prefork", "solo prefork threads"])
def test_each_of_them_is_measured(redis_server: RedisServer, pools: str) -> None:
    with redis_server.client() as client:
        client.flushall()
    command = [sys.executable, "-c", textwrap.dedent(CODE), pools, redis_server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(3 * len(pools.split()))]
