"""auto_configure_celery_limits on figures in this process's memory: what it sets, what it refuses, what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.simulate import fresh_app, observe, publish, receive

import celery_argsize
from celery_argsize import ConfigError, ReprLimits, auto_configure_celery_limits, set_repr_limits
from celery_argsize.advice.brokers import broker_name, broker_of
from celery_argsize.advice.limits import limits_of
from celery_argsize.api import advice as configure

if TYPE_CHECKING:
    from celery import Celery
    from support.simulate import Call


def records(count: int) -> Call:
    return ([{"id": n, "title": f"Song {n}"} for n in range(count)],), {}


@pytest.fixture
def app() -> Any:
    """An app that counts in this process; its broker is called memory, and has no limits."""
    app = fresh_app()
    celery_argsize.install(app)
    yield app
    celery_argsize.uninstall(app)


def measure(app: Celery, calls: dict[str, list[Call]]) -> None:
    for task, seen in calls.items():
        for call in seen:
            celery_argsize.update_size_metrics(receive(task, publish(app, task, call)), app)


def test_without_apply_nothing_is_changed(app: Celery) -> None:
    measure(app, {"scan": [records(100)] * 30})
    done = auto_configure_celery_limits(app)
    assert (done.advice.verdict, done.app_limits, dict(done.task_limits)) == ("apply", None, {})
    assert (done.tier, str(done)) == (131_072, "nothing was set")
    assert limits_of(app, "scan") == ReprLimits()


@pytest.mark.smoke
def test_apply_sets_it_for_all_tasks_and_never_lowers(app: Celery) -> None:
    measure(app, {"scan": [records(100)] * 30})
    app.amqp.kwargsrepr_maxsize = 9999
    app.conf.task_repr_maxlevels = 0
    done = auto_configure_celery_limits(apply=True)  # the only app in this process that is monitored
    assert done.app_limits == limits_of(app, "anything") == ReprLimits(131_072, 9999, 0)
    assert "all tasks: ReprLimits(args=131072, kwargs=9999, levels=0)" in str(done)


def test_what_would_break_the_broker_is_refused_unless_forced(app: Celery) -> None:
    measure(app, {"good": [records(50)] * 30, "bad": [records(4000)] * 30})
    done = auto_configure_celery_limits(app, apply=True, broker="amqp")
    assert (done.app_limits, dict(done.task_limits)) == (None, {"good": ReprLimits(16_384)})
    assert "131,064 bytes" in done.refused["bad"]
    assert limits_of(app, "bad") == ReprLimits()
    forced = auto_configure_celery_limits(app, apply=True, force=True, broker="amqp")
    assert forced.task_limits["bad"] == limits_of(app, "bad") == ReprLimits(524_288)
    assert "bad: forced, although whole reprs take up to" in str(forced)


def test_what_costs_too_much_is_refused_unless_forced(app: Celery) -> None:
    measure(app, {"scan": [(([{"a": 1}] * 3000,), {})] * 30})
    done = auto_configure_celery_limits(app, apply=True, max_publish_seconds=1e-6)
    assert "a publish would take" in done.refused["scan"]
    assert limits_of(app, "scan") == ReprLimits()
    auto_configure_celery_limits(app, apply=True, force=True, max_publish_seconds=1e-6)
    assert limits_of(app, "scan") == ReprLimits(131_072)


def test_too_few_runs_set_nothing(app: Celery) -> None:
    measure(app, {"scan": [records(100)] * 3})
    done = auto_configure_celery_limits(app, apply=True)
    assert (done.advice.verdict, str(done)) == ("too_few", "nothing was set")
    assert auto_configure_celery_limits(app, apply=True, min_runs=3).app_limits == ReprLimits(131_072)


def test_apply_needs_an_app() -> None:
    with pytest.raises(ConfigError, match="apply=True needs the app"):
        auto_configure_celery_limits(apply=True, redis_url="redis://localhost")


@pytest.mark.smoke
def test_verify_in_this_process(app: Celery) -> None:
    measure(app, {"scan": [records(100)]})
    assert [check.verdict for check in celery_argsize.verify_limits(app)] == ["no_evidence"]
    set_repr_limits(app, {"scan": 131_072})
    assert [check.verdict for check in celery_argsize.verify_limits(app)] == ["not_in_force"]
    measure(app, {"scan": [records(100)]})
    assert [check.verdict for check in celery_argsize.verify_limits(app)] == ["in_force"]
    assert celery_argsize.verify_limits(app, seconds=1e-9) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://localhost", "redis"),
        ("sentinel://localhost:26379", "redis"),
        ("amqps://localhost", "amqp"),
        ("pyamqp://localhost;amqp://other", "amqp"),
        (["amqp://one", "amqp://two"], "amqp"),
        ("memory://", "memory"),
        ("sqs://key:secret@", "sqs"),
    ],
)
def test_the_broker_is_that_of_the_app(url: str, name: str) -> None:
    app = fresh_app()
    app.conf.update(broker_write_url=url)
    assert broker_of(broker_name(app)).name == name


def test_advice_on_figures_that_are_shown_says_where_they_are_from() -> None:
    summary = observe(fresh_app(), {"scan": [records(100)] * 30})
    assert configure.advice_for(summary, None, None).broker.name == "unknown"
    assert configure.advice_for(summary, fresh_app(), None).broker.name == "memory"
    assert configure.advice_for(summary, fresh_app(), "sqs").broker.name == "sqs"
