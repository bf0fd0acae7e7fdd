"""Limits for single tasks and for all: whatever way a task is sent, its message has the reprs it should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import celery
import pytest
from celery import chain, group, signature
from celery.utils.saferepr import saferepr
from support.simulate import fresh_app, publish

from celery_argsize import ConfigError, ReprLimits, set_repr_limits
from celery_argsize.advice.limits import limits_of, set_app_limits

if TYPE_CHECKING:
    from celery import Celery

BIG = [{"id": n, "deep": [[n]]} for n in range(300)]
WHOLE = saferepr((BIG,), None, 0)


def body(*_: Any) -> None:
    """Never run here."""


@pytest.fixture
def app() -> Celery:
    app = fresh_app()
    app.conf.update(task_default_queue="q")
    app.task(name="scan")(body)
    app.task(name="other")(body)
    set_repr_limits(app, {"scan": ReprLimits(args=131_072, levels=9)})
    return app


def sent(app: Celery) -> dict[str, str]:
    """The argsrepr of each task that is in the queue."""
    found = {}
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("q")
        while queue.qsize():
            message = queue.get_nowait()
            found[message.headers["task"]] = message.headers["argsrepr"]
            message.ack()
    return found


@pytest.mark.smoke
def test_only_the_task_that_needs_it(app: Celery) -> None:
    assert publish(app, "scan", ((BIG,), {})).headers["argsrepr"] == WHOLE
    assert publish(app, "other", ((BIG,), {})).headers["argsrepr"] == saferepr((BIG,), 1024)
    assert publish(app, "scan", ((), {"x": BIG})).headers["kwargsrepr"] == saferepr({"x": BIG}, 1024, maxlevels=9)


WAYS: list[Any] = [
    lambda app: app.tasks["scan"].delay(BIG),
    lambda app: app.tasks["scan"].apply_async((BIG,), countdown=1, headers={"more": 1}),
    lambda app: app.send_task("scan", (BIG,)),
    lambda app: signature("scan", (BIG,), app=app).apply_async(),
    lambda app: group([signature("scan", (BIG,), app=app)], app=app).apply_async(),
    lambda app: chain(signature("scan", (BIG,), app=app), signature("other", app=app)).apply_async(),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.smoke
def test_every_way_of_sending(app: Celery, way: Any) -> None:
    way(app)
    assert sent(app)["scan"] == WHOLE


@pytest.mark.smoke
def test_a_repr_that_the_caller_gives_is_left_alone(app: Celery) -> None:
    app.send_task("scan", (BIG,), argsrepr="300 records")
    assert sent(app)["scan"] == "300 records"


@pytest.mark.smoke
def test_limits_set_after_a_message_was_sent_hold_for_the_next(app: Celery) -> None:
    app.send_task("other", (BIG,))
    assert len(sent(app)["other"]) < 1100
    set_repr_limits(app, {"other": 131_072})
    app.send_task("other", (BIG,))
    assert len(sent(app)["other"]) > 5000
    assert publish(app, "scan", ((BIG,), {})).headers["argsrepr"] == WHOLE, "later calls add to earlier ones"
    set_repr_limits(app, {"scan": ReprLimits()})
    assert publish(app, "scan", ((BIG,), {})).headers["argsrepr"] == saferepr((BIG,), 1024)


def test_two_apps_do_not_mix(app: Celery) -> None:
    assert publish(fresh_app(), "scan", ((BIG,), {})).headers["argsrepr"] == saferepr((BIG,), 1024)
    assert limits_of(fresh_app(), "scan") == ReprLimits()
    assert limits_of(app, "scan") == ReprLimits(131_072, levels=9)


@pytest.mark.smoke
def test_limits_for_all() -> None:
    app = fresh_app()
    set_app_limits(app, ReprLimits(131_072, 2048, 9))
    assert limits_of(app, "anything") == ReprLimits(131_072, 2048, 9)
    assert str(ReprLimits(131_072, levels=9)) == "ReprLimits(args=131072, levels=9)", "without the default for kwargs"
    levels = 9 if celery.VERSION >= (5, 7) else 3
    assert publish(app, "scan", ((BIG,), {})).headers["argsrepr"] == saferepr((BIG,), 131_072, maxlevels=levels)


@pytest.mark.parametrize("wrong", [-1, True, 1.5, None, "131072", ReprLimits(args=-1), ReprLimits(levels="all")])  # type: ignore[arg-type]
def test_a_limit_that_cannot_work_is_named_and_nothing_is_set(app: Celery, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="the limits of 'other' cannot work"):
        set_repr_limits(app, {"scan": 1, "other": wrong})
    assert limits_of(app, "scan").args == 131_072
