"""`argsize doctor` on brokers that are slow, partly away, or given settings that cannot work: real ones."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu import Queue
from support.judging import judged, verdicts
from support.servers import RedisServer, free_port

from celery_argsize.doctor.facts import Facts, LookResult, Scope, Unavailable
from celery_argsize.doctor.look.broker import connection_to
from celery_argsize.doctor.look.workers import look_at_workers
from celery_argsize.redis_url import safe_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.scene import Scene


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[int]:
    """A port that leads to *port*, where all that is sent arrives *seconds* later."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for pair, wait in (((near, far), seconds), ((far, near), 0.0)):
                    threading.Thread(target=carry, args=(*pair, wait), daemon=True).start()

    def carry(source: socket.socket, target: socket.socket, wait: float) -> None:
        with suppress(OSError), source, target:
            while sent := source.recv(65536):
                time.sleep(wait)
                target.sendall(sent)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


def facts_of(app: Any, seconds: float) -> Facts:
    where = Scope(app, {}, seconds)
    none: LookResult[Any] = LookResult(why_not="not asked")
    return Facts(where, none, LookResult(look_at_workers(where)), none, none)


@pytest.mark.slow
def test_many_queues_far_away_do_not_make_the_broker_unreachable(amqp_scene: Scene) -> None:
    app = amqp_scene.producer
    with connection_to(app, 2) as connection, far_away(connection.port, 0.03) as port:
        url = connection.as_uri(include_password=True).replace(f":{connection.port}/", f":{port}/")
        many = Celery("workload", broker=url, set_as_current=False)
        many.conf.task_queues = [Queue(f"many_{number}") for number in range(300)]
        facts = facts_of(many, 5)
    assert verdicts(facts, "broker.reachable") == {"": "ok"}
    uncounted = facts.workers.get().uncounted
    assert uncounted
    assert all("--timeout" in why for why in uncounted.values())


@pytest.mark.slow
def test_a_slow_broker_is_not_away(redis_server: RedisServer) -> None:
    with far_away(redis_server.port, 0.4) as port:
        app = Celery("workload", broker=f"redis://127.0.0.1:{port}/0", set_as_current=False)
        facts = {seconds: facts_of(app, seconds) for seconds in (2, 5)}
    for seconds, verdict in ((2, "unknown"), (5, "warn")):
        with pytest.raises(Unavailable, match="--timeout"):
            judged(facts[seconds], "workers.answering")
        if verdict == "warn":
            assert verdicts(facts[seconds], "broker.reachable") == {"": verdict}
            continue
        with pytest.raises(Unavailable, match="--timeout"):
            judged(facts[seconds], "broker.reachable")


def test_of_a_failover_list_the_broker_that_answers_is_named(redis_server: RedisServer) -> None:
    dead = f"redis://:verysecret@127.0.0.1:{free_port()}/0"
    app = Celery("workload", broker=f"{dead};{redis_server.url}", set_as_current=False)
    found = judged(facts_of(app, 3), "broker.reachable")
    assert {subject: one.verdict for subject, one in found.items()} == {"": "ok"}
    assert found[""].figure == safe_url(redis_server.url)
    assert "verysecret" not in repr(found)


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_transport_options": {"visibility_timeout": "1h"}},
        {"broker_transport_options": {"visibility_timeout": None}},
        {"broker_transport_options": {"global_keyprefix": None}},
        {"broker_transport_options": {"priority_steps": 3}},
        {"task_serializer": "yml"},
    ],
)
def test_settings_that_kombu_cannot_work_with_leave_the_broker_reachable(
    redis_server: RedisServer, conf: dict[str, Any]
) -> None:
    app = Celery("workload", broker=redis_server.url, set_as_current=False)
    app.conf.update(conf)
    facts = facts_of(app, 4)
    assert verdicts(facts, "broker.reachable") == {"": "ok"}
    with pytest.raises(Unavailable, match=r"cannot work with the app's settings .* see settings\.values"):
        judged(facts, "workers.answering")
