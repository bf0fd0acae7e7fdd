"""The log of large tasks: its text, its fields for JSON logs, and how often it may write."""

from __future__ import annotations

import logging
import os
import time

import pytest

from celery_argsize.failure_log import FailureLog
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import ID_BYTES, NAME_BYTES, Measurement, Part, clean
from celery_argsize.worker.large_task_log import LargeTaskLog

GUIDE_EXAMPLE = """\
[CELERY MONITOR] Task: extract_metadata_batch
[CELERY MONITOR] ID: 5ff7c033-b6c3-4a88-8b46-9d175f7a7b98
[CELERY MONITOR] Args: 45,678 characters (⚠ TRUNCATED by size)
[CELERY MONITOR] Kwargs: 0 characters (✓)
[CELERY MONITOR] Current limit: 1,024 characters"""


def large(name: str = "extract_metadata_batch") -> Measurement:
    return Measurement(
        name,
        "5ff7c033-b6c3-4a88-8b46-9d175f7a7b98",
        Part(Size(45_678, 45_700), "size"),
        Part(Size(0, 0), "intact", 2),
        time.time(),
    )


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="celery_argsize")


def test_the_guides_example(caplog: pytest.LogCaptureFixture) -> None:
    LargeTaskLog().write(large(), (1024, 1024))
    (record,) = caplog.records
    assert record.getMessage() == GUIDE_EXAMPLE
    assert (record.name, record.levelname) == ("celery_argsize", "WARNING")
    fields = {name: value for name, value in vars(record).items() if name.startswith("argsize_")}
    assert fields == {
        "argsize_task": "extract_metadata_batch",
        "argsize_task_id": "5ff7c033-b6c3-4a88-8b46-9d175f7a7b98",
        "argsize_args_chars": 45_678,
        "argsize_args_bytes": 45_700,
        "argsize_args_truncated": True,
        "argsize_args_verdict": "size",
        "argsize_args_limit": 1024,
        "argsize_kwargs_chars": 0,
        "argsize_kwargs_bytes": 0,
        "argsize_kwargs_truncated": False,
        "argsize_kwargs_verdict": "intact",
        "argsize_kwargs_limit": 1024,
        "argsize_not_shown": 0,
    }


def test_two_limits_and_an_unmeasurable_part(caplog: pytest.LogCaptureFixture) -> None:
    seen = large()._replace(kwargs=Part(None))
    LargeTaskLog().write(seen, (1024, 2048))
    assert "Kwargs: not measurable (✓)" in caplog.text
    assert "Current limit: 1,024 characters (args), 2,048 characters (kwargs)" in caplog.text


def test_a_burst_then_a_few_a_minute_for_each_name(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = LargeTaskLog()
    for _ in range(100):
        log.write(large(), (1024, 1024))
    assert len(caplog.records) == log.BURST
    log.write(large("another"), (1024, 1024))
    assert len(caplog.records) == log.BURST + 1
    now += 60
    for _ in range(100):
        log.write(large(), (1024, 1024))
    shown = caplog.records[log.BURST + 1 :]
    assert len(shown) == log.A_MINUTE
    assert shown[0].getMessage().endswith("\n[CELERY MONITOR] 90 more not shown")
    assert "not shown" not in shown[1].getMessage()


def test_forked_children_share_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    log = LargeTaskLog()
    for _ in range(30):  # one after the other, each with one task, as with --max-tasks-per-child=1
        pid = os.fork()
        if pid == 0:
            log.write(large(), (1024, 1024))
            os._exit(len(caplog.records))
        caplog.clear()
        os.waitpid(pid, 0)
    log.write(large(), (1024, 1024))
    assert caplog.records == []
    assert log._hidden("another") == 0


@pytest.mark.parametrize(
    "name",
    ["x" * 10_000, "é" * 10_000, "é\n", "a\nFake: line", "\x1b[31mred", "\ud800", "tab\tbed", "music.tasks.scan"],
)
def test_names_are_made_fit_for_logs_and_redis(name: str) -> None:
    cleaned = clean(name, NAME_BYTES)
    assert cleaned.isprintable()
    assert "é" not in name or "é" in cleaned
    assert len(cleaned.encode()) <= NAME_BYTES
    assert clean(cleaned, NAME_BYTES) == cleaned
    assert clean(name + "2", NAME_BYTES) != cleaned
    assert len(clean(name, ID_BYTES).encode()) <= ID_BYTES


def test_failures_are_counted_and_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    failures = FailureLog("it failed")
    for _ in range(50):
        failures.report(ValueError("a secret value"))
    now += failures.EVERY
    failures.report(ValueError("a secret value"))
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [
        "celery_argsize: it failed: ValueError",
        "celery_argsize: it failed: ValueError (49 more since the last such line)",
    ]
    assert failures.count == 51
