"""What the doctor makes of values that are of another kind than Celery or kombu takes: no error, and no "not set"."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_argsize.doctor.checks import Outcome
from celery_argsize.doctor.facts import Facts, Scope, Unavailable
from celery_argsize.doctor.judge.settings import CHECKS

REDIS = "redis://localhost:6379/0"
BY_ID = {check.id.partition(".")[2]: check for check in CHECKS}


def app_with(**conf: Any) -> Celery:
    app = Celery("shop", broker=REDIS, backend=REDIS, set_as_current=False)
    app.conf.update(conf)

    @app.task(name="buy", shared=False)
    def buy() -> None:
        """Do nothing."""

    return app


def judged(name: str, app: Celery) -> list[Outcome]:
    app.finalize()
    outcome = BY_ID[name].judge(Facts(Scope(app)))
    return [outcome] if isinstance(outcome, Outcome) else [*outcome]


def one(name: str, app: Celery) -> Outcome:
    (outcome,) = judged(name, app)
    return outcome


@pytest.mark.parametrize(
    ("conf", "check", "figure", "fix"),
    [
        ({"worker_max_memory_per_child": "500MB"}, "max_memory", "worker_max_memory_per_child is '500MB'", "= None"),
        ({"task_time_limit": "5m"}, "time_limit", "task_time_limit is '5m'", "task_time_limit = None"),
        ({"task_soft_time_limit": [1]}, "time_limit", "task_soft_time_limit is [1]", "= None"),
        ({"task_time_limit": timedelta(minutes=5)}, "time_limit", "task_time_limit is a timedelta", "= None"),
        ({"worker_max_tasks_per_child": "abc"}, "", "worker_max_tasks_per_child is 'abc'", "= None"),
        ({"result_expires": "1h"}, "result_expires", "result_expires is '1h'", "result_expires = 86400.0"),
        ({"worker_prefetch_multiplier": "x"}, "prefetch", "worker_prefetch_multiplier is 'x'", "= 4"),
        ({"redis_max_connections": "redis://:hunter2@h/0"}, "redis_max_connections", "is a str", "= None"),
    ],
)
def test_a_value_that_is_no_number_fails_and_is_not_taken_for_not_set(
    conf: dict[str, Any], check: str, figure: str, fix: str
) -> None:
    outcome = one("values", app_with(**conf))

    assert outcome.verdict == "fail"
    assert figure in outcome.figure
    assert fix in outcome.fix
    if check:
        with pytest.raises(Unavailable, match=r"is not a number: see settings\.values"):
            judged(check, app_with(**conf))


def test_numbers_that_are_text_warn_where_celery_does_not_convert_them() -> None:
    outcome = one("values", app_with(redis_max_connections="20"))

    assert (outcome.verdict, outcome.fix) == ("warn", "app.conf.redis_max_connections = 20")
    assert one("values", app_with(result_expires="3600")).verdict == "ok"
    assert one("values", app_with(worker_concurrency="")).verdict == "ok"


@pytest.mark.parametrize(
    ("options", "figure"),
    [
        ({"visibility_timeout": "1h"}, "visibility_timeout is '1h'"),
        ({"visibility_timeout": None}, "visibility_timeout is None"),
    ],
)
def test_an_option_of_the_transport_that_kombu_fails_with_is_named(options: dict[str, Any], figure: str) -> None:
    app = app_with(broker_transport_options=options)

    assert one("values", app).verdict == "fail"
    assert figure in one("values", app).figure
    assert f"'{next(iter(options))}'] = " in one("values", app).fix


def test_options_of_the_transport_may_be_pairs_as_celery_takes_them() -> None:
    app = app_with(broker_transport_options=[("visibility_timeout", 60)])

    assert one("values", app).verdict == "ok"
    assert one("visibility_timeout", app).figure == "60 s"


def test_a_serializer_that_there_is_not_is_named() -> None:
    outcome = one("serializer", app_with(task_serializer="yml"))

    assert outcome.verdict == "fail"
    assert outcome.figure.startswith("task_serializer is yml, ")
    assert outcome.fix == "app.conf.task_serializer = 'json'"
