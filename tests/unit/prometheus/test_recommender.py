"""The limits that scrapes show: worked out beside them, kept for a while, and not for longer."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from support.servers import wait_until
from support.simulate import fresh_app, observe

from celery_argsize import ReprLimits, StoreError, advise
from celery_argsize.prometheus import collector as recommender
from celery_argsize.prometheus.collector import Recommender

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize import Advice


def advice(payload: int, runs: int = 30) -> Advice:
    return advise(observe(fresh_app(), {"scan": [((list(range(payload)),), {})] * runs}), "memory")


WHOLE, CUT, FEW = advice(1), advice(1000), advice(1000, 3)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(recommender, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def asked(asking: Recommender) -> ReprLimits | None:
    """What it says once it has worked out what this question makes it."""
    asking()
    if asking._thread is not None:
        asking._thread.join(10)
    return asking()


def counting(*answers: Advice | Exception) -> tuple[Callable[[], Advice], list[int]]:
    calls: list[int] = []

    def advise() -> Advice:
        calls.append(1)
        answer = answers[min(len(calls), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return advise, calls


@pytest.mark.parametrize(("given", "limits"), [(WHOLE, ReprLimits()), (CUT, ReprLimits(args=131072)), (FEW, None)])
def test_it_says_what_the_advice_comes_to(given: Advice, limits: ReprLimits | None) -> None:
    assert asked(Recommender(lambda: given)) == limits


def test_who_asks_does_not_wait() -> None:
    go = threading.Event()

    def slow() -> Advice:
        go.wait(20)
        return CUT

    asking = Recommender(slow)
    assert asking() is None
    assert asking() is None
    go.set()
    wait_until(lambda: asking() == ReprLimits(args=131072), what="the answer")


def test_it_is_worked_out_anew_after_five_minutes_and_soon_while_nothing_is_known(clock: Clock) -> None:
    advise, calls = counting(FEW, CUT, WHOLE)
    asking = Recommender(advise)
    assert asked(asking) is None
    clock.now += Recommender.RETRY - 1
    assert (asked(asking), len(calls)) == (None, 1)
    clock.now += 1
    assert (asked(asking), len(calls)) == (ReprLimits(args=131072), 2)
    clock.now += Recommender.REFRESH - 1
    assert (asked(asking), len(calls)) == (ReprLimits(args=131072), 2)
    clock.now += 1
    assert (asked(asking), len(calls)) == (ReprLimits(), 3)


def test_what_is_old_is_not_shown(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    advise, calls = counting(CUT, StoreError("away"))
    asking = Recommender(advise)
    assert asked(asking) == ReprLimits(args=131072)
    clock.now += Recommender.REFRESH
    assert (asked(asking), len(calls)) == (ReprLimits(args=131072), 2)
    clock.now = 1000.0 + Recommender.MAX_AGE
    assert asked(asking) is None
    assert [record.message for record in caplog.records] == ["celery_argsize: limits cannot be recommended: away"]
