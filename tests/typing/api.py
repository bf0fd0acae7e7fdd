"""The public API as a typed caller sees it: checked by mypy in ``make check``, never run."""

from __future__ import annotations

from celery import Celery
from typing_extensions import assert_type

import celery_argsize
from celery_argsize import (
    Advice,
    ArgsizeError,
    Configured,
    HostCheck,
    Measurement,
    Monitor,
    Recommendation,
    ReprLimits,
    ResetResult,
    Summary,
)

app = Celery("music")

assert_type(celery_argsize.install(app), Monitor)
assert_type(celery_argsize.install(app, redis_url="redis://localhost", flush_interval=2), Monitor)
celery_argsize.uninstall(app)

assert_type(celery_argsize.measure_json_size({"a": [1]}), int)
measurement = celery_argsize.measure_celery_task_size(app.tasks["scan"], "id", ("x",), {})
assert_type(measurement, Measurement)
if measurement.args.size is not None:
    assert_type(measurement.args.size.chars, int)

celery_argsize.update_size_metrics(measurement, app)
celery_argsize.update_size_metrics(measurement, redis_url="redis://localhost")

summary = celery_argsize.get_size_summary(redis_url="redis://localhost", app_name="music")
assert_type(summary, Summary)
assert_type(summary.tasks[0].args.p95, int)
assert_type(celery_argsize.auto_configure_celery_limits(app), Configured)
assert_type(celery_argsize.auto_configure_celery_limits(app, apply=True, force=True).advice, Advice)
assert_type(celery_argsize.auto_configure_celery_limits().tier, "int | None")
assert_type(celery_argsize.advise(summary, broker="amqp", celery_version="5.7.0").rule_of_thumb, Recommendation)
assert_type(celery_argsize.get_advice(app).per_task, dict[str, ReprLimits])
celery_argsize.set_repr_limits(app, {"scan": ReprLimits(args=131_072), "insert": 4096})
assert_type(celery_argsize.verify_limits(app), list[HostCheck])
assert_type(celery_argsize.reset_metrics(task="scan"), ResetResult)

try:
    celery_argsize.reset_metrics(app)
except ArgsizeError as error:
    assert_type(error, ArgsizeError)

celery_argsize.no_such_name  # type: ignore[attr-defined]  # noqa: B018 - that it is an error is the test
