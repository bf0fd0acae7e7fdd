"""Trouble of our own: how much of it gets into the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery_argsize import StoreError
from celery_argsize.failure_log import FailureLog

if TYPE_CHECKING:
    import pytest


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("celery_argsize: ") for record in caplog.records]


def test_what_goes_on_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    trouble = FailureLog("no writing")
    for number in range(100):
        trouble.report(StoreError(f"no {number}"))
    trouble.over("writing again")
    trouble.over("writing again")
    assert lines(caplog) == ["no writing: no 0", "writing again"]
    assert trouble.count == 100


def test_after_a_minute_it_is_said_again_with_how_many_there_were(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailureLog, "EVERY", 0.0)
    trouble = FailureLog("no writing")
    trouble.report(StoreError("no"))
    monkeypatch.setattr(FailureLog, "EVERY", 60.0)
    trouble.report(StoreError("no"))
    trouble.report(StoreError("no"))
    monkeypatch.setattr(FailureLog, "EVERY", 0.0)
    trouble.report(StoreError("no"))
    assert lines(caplog) == ["no writing: no", "no writing: no (2 more since the last such line)"]


def test_what_comes_and_goes_is_two_lines_and_something_new_two_more(caplog: pytest.LogCaptureFixture) -> None:
    trouble = FailureLog("no writing")
    for _ in range(50):
        trouble.report(StoreError("no"))
        trouble.over("writing again")
    trouble.report(StoreError("another"))
    trouble.over("writing again")
    said = ["no writing: no", "writing again"]
    assert lines(caplog) == [*said, "no writing: another (49 more since the last such line)", "writing again"]


def test_the_text_of_a_foreign_error_and_its_place_stay_out_of_it(caplog: pytest.LogCaptureFixture) -> None:
    trouble = FailureLog("no measuring")
    trouble.report(RuntimeError("sesame"))
    assert lines(caplog) == ["no measuring: RuntimeError"]


def test_a_handler_of_the_apps_that_raises_harms_nobody() -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(record.msg)

    broken, logger = Broken(), logging.getLogger("celery_argsize")
    logger.addFilter(broken)
    try:
        trouble = FailureLog("no measuring")
        trouble.report(RuntimeError("sesame"))
    finally:
        logger.removeFilter(broken)
    assert trouble.count == 1
