"""What the report and the advice say of ``__other__``: the tasks whose names are past the cap, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.simulate import fresh_app, observe

from celery_argsize.advice.adviser import advise
from celery_argsize.figures.counters import OTHER
from celery_argsize.figures.summary import only
from celery_argsize.views.advice_text import advice_text
from celery_argsize.views.report import report_json, report_text

if TYPE_CHECKING:
    from support.simulate import Call

SMALL: Call = ((1,), {})
CUT: Call = (([{"id": number} for number in range(500)],), {})
#: More than a frame takes.
HUGE: Call = (("x" * 200_000,), {})


def advice_on(**calls: Call) -> Any:
    return advise(observe(fresh_app(), {name: [call] * 40 for name, call in calls.items()}), "amqp", "5.7")


def test_the_report_says_what_it_is_and_how_many_runs() -> None:
    summary = observe(fresh_app(), {"a": [SMALL] * 3, OTHER: [SMALL] * 1234})
    advice = advise(summary)
    text = report_text(summary, advice)
    assert "past max_task_names are added up as __other__: 1,234 runs, of how many names is not known" in text
    assert report_json(summary, advice)["other_runs"] == 1234


def test_the_report_is_silent_where_there_is_none() -> None:
    summary = observe(fresh_app(), {"a": [SMALL]})
    assert OTHER not in report_text(summary, advise(summary))
    assert report_json(summary, advise(summary))["other_runs"] == 0


@pytest.mark.parametrize("named", [SMALL, CUT, HUGE])
@pytest.mark.parametrize("other", [CUT, HUGE])
def test_nobody_is_told_to_do_anything_for_it_by_name(named: Call, other: Call) -> None:
    advice = advice_on(a=named, **{OTHER: other})
    assert OTHER not in advice.per_task
    assert not [line for line in advice.lines if OTHER in line]
    found = next(task for task in advice.tasks if task.name == OTHER)
    assert not [line for line in found.lines if OTHER in line]
    text = advice_text(advice)
    assert f"{OTHER}: no advice of its own\n" in text
    assert "raise that for advice on each" in text
    assert f"'{OTHER}'" not in text
    assert f"'{OTHER}'" not in report_text(observe(fresh_app(), {"a": [named] * 40, OTHER: [other] * 40}), advice)


def test_limits_for_all_tasks_are_for_these_too() -> None:
    advice = advice_on(a=CUT, **{OTHER: CUT})
    assert (advice.verdict, advice.limits.args, advice.cured) == ("apply", 16_384, 80)


def test_what_would_harm_them_is_not_advised_for_all_tasks() -> None:
    advice = advice_on(a=CUT, **{OTHER: HUGE})
    assert (advice.verdict, [*advice.per_task]) == ("apply_only", ["a"])
    assert advice_on(**{OTHER: HUGE}).verdict == "too_few"


def test_the_summary_of_some_tasks_adds_up_these_alone() -> None:
    summary = only(observe(fresh_app(), {"scan": [CUT] * 3, "insert": [SMALL]}), lambda name: name == "insert")
    assert (summary.total_tasks, summary.max_args_size, summary.truncated_tasks) == (1, 3, 0)
    assert summary.largest_task is not None
    assert summary.largest_task.name == "insert"
