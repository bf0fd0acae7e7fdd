"""The doctor's own ways: checks, the score, exit codes, texts, and that no fault of one part hides another."""

from __future__ import annotations

import json
import re
import threading
import time
from itertools import product
from typing import Any

import pytest
from celery import Celery
from support.servers import ROOT

from celery_argsize.doctor.checks import EXIT_CODES, Check, CheckResult, Diagnosis, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.examine import CHECKS, LOOKS, diagnose, judge, look_around
from celery_argsize.doctor.facts import Scope, Unavailable
from celery_argsize.doctor.text import diagnosis_text

SECRET = "redis://:secret@host"
NO_RIGHTS = "no rights"
NO_APP = "no app was given: say which with -A"

OUTCOMES = {
    "ok": ok("all is well", "3 of 4"),
    "unknown": unknown("nobody knows"),
    "warn": warn("soon", "4 of 4", fix="app.conf.x = 1"),
    "fail": fail("now", "5 of 4", fix="app.conf.x = 1\napp.conf.y = 2"),
}


def diagnosis(*verdicts: str, vital: bool = False) -> Diagnosis:
    checks = [
        CheckResult(Check(f"group.check_{number}", "something", lambda _: [], vital=vital), OUTCOMES[verdict])
        for number, verdict in enumerate(verdicts)
    ]
    return Diagnosis("proj", 0.0, tuple(checks))


@pytest.mark.parametrize("verdicts", [*product(("ok", "unknown", "warn", "fail"), repeat=4)])
def test_the_score_follows_the_written_rule(verdicts: tuple[str, ...]) -> None:
    found = diagnosis("ok", "ok", "ok", "ok", *verdicts)
    taken = 25 * verdicts.count("fail") + 5 * verdicts.count("warn") + min(10, verdicts.count("unknown"))
    assert found.score == max(0, 100 - taken)
    worst = next(one for one in ("fail", "warn", "unknown", "ok") if one in ("ok", *verdicts))
    assert found.verdict == worst
    assert found.exit_code == {"ok": 0, "warn": 1, "fail": 2, "unknown": 3}[worst]


@pytest.mark.parametrize(
    ("verdicts", "health"),
    [
        (["ok"] * 9, "EXCELLENT"),
        (["ok"] * 9 + ["warn"], "EXCELLENT"),
        (["ok"] * 9 + ["warn"] * 2, "GOOD"),
        (["ok"] * 40 + ["unknown"] * 40, "GOOD"),
        (["ok"] * 40 + ["unknown"] * 41, "UNKNOWN"),
        (["ok", "warn"] + ["unknown"] * 3, "UNKNOWN"),
        (["ok", "fail"] + ["unknown"] * 3, "CRITICAL"),
        (["ok"] * 9 + ["fail"], "FAIR"),
        (["ok"] * 9 + ["fail"] * 2, "POOR"),
        (["ok"] * 9 + ["fail"] * 3, "CRITICAL"),
        (["ok"] * 9 + ["fail"] * 9, "CRITICAL"),
        (["unknown"] * 9, "UNKNOWN"),
        ([], "UNKNOWN"),
    ],
)
def test_the_score_has_a_word(verdicts: list[str], health: str) -> None:
    assert diagnosis(*verdicts).health == health


def test_where_a_vital_check_fails_nothing_is_left() -> None:
    assert diagnosis(*["ok"] * 30, "fail", vital=True).score == 0
    assert diagnosis(*["ok"] * 30, "warn", vital=True).score == 95


def test_a_vital_check_that_fails_for_one_of_its_subjects_costs_no_more_than_others() -> None:
    check = Check("workers.answering", "who answers", lambda _: [], vital=True)
    stuck = CheckResult(check, fail("it is stuck", fix="kill -CONT 99", subject="pid 99"))
    found = Diagnosis("", 0.0, (CheckResult(check, ok("workers answer")), stuck))
    assert (found.score, found.exit_code, stuck.to_json()["vital"]) == (75, 2, False)


def test_a_check_of_many_subjects_counts_once_by_the_worst_of_them() -> None:
    check = Check("workers.memory", "memory", lambda _: [])
    many = Diagnosis(
        "", 0.0, tuple(CheckResult(check, OUTCOMES[verdict]) for verdict in ("fail", "ok", "fail", "warn"))
    )
    assert (many.counts, many.score) == ({"fail": 1, "warn": 0, "unknown": 0, "ok": 0}, 75)


def test_nothing_known_has_no_score() -> None:
    assert diagnosis("unknown").score is None
    assert diagnosis("unknown").exit_code == EXIT_CODES["unknown"] == 3
    assert "UNKNOWN\n" in diagnosis_text(diagnosis("unknown"))


def test_each_check_says_where_it_is_explained() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert headings == [check.id for check in CHECKS]
    assert len(headings) == len(set(headings))
    for check in CHECKS:
        assert check.docs == f"docs/doctor.md#{check.id.replace('.', '')}"
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", check.id)


def test_a_look_that_hangs_costs_its_time_and_nothing_else() -> None:
    over = threading.Event()
    began = time.monotonic()
    try:
        facts = look_around(Scope(None, seconds=0.3), {**LOOKS, "host": lambda _: over.wait(), "redis": raises})
    finally:
        over.set()
    assert time.monotonic() - began < 5  # it would have hung for ever
    assert facts.host.why_not.startswith("no answer within 0.3 s")
    assert facts.redis.why_not.startswith("looking failed with KeyError at test_text_and_score.py:")
    assert facts.workers.why_not.startswith("no app was given")


def raises(_: Any) -> Any:
    raise KeyError(SECRET)


def not_known(_: Any) -> Any:
    raise Unavailable(NO_RIGHTS)


def test_a_judge_that_fails_hides_no_other_and_quotes_nothing() -> None:
    checks = [Check(f"a.{name}", name, judges) for name, judges in JUDGES.items()]
    results = judge(look_around(Scope(None, seconds=0.1), dict.fromkeys(LOOKS, not_known)), checks)
    assert [(one.check.id, one.outcome.verdict) for one in results] == [
        ("a.raises", "unknown"),
        ("a.not_known", "unknown"),
        ("a.one", "ok"),
        ("a.two", "ok"),
        ("a.two", "warn"),
        ("a.reads", "unknown"),
    ]
    assert "secret" not in repr(results)
    assert results[-1].outcome.reason == NO_RIGHTS


JUDGES: dict[str, Any] = {
    "raises": raises,
    "not_known": not_known,
    "one": lambda _: OUTCOMES["ok"],
    "two": lambda _: [OUTCOMES["ok"], OUTCOMES["warn"]],
    "none": lambda _: [],
    "reads": lambda facts: facts.host.get(),
}


def test_the_text_begins_with_what_is_worst_and_says_each_reason_once() -> None:
    text = diagnosis_text(diagnosis("ok", "warn", "unknown", "unknown", "fail", "ok"))
    assert text.splitlines() == [
        "SYSTEM HEALTH of proj: FAIR (68 of 100)",
        "6 checks: 1 FAIL, 1 WARN, 2 unknown, 2 ok. 1970-01-01 00:00:00 UTC",
        "",
        "FAIL group.check_4: 5 of 4: Now.",
        "  app.conf.x = 1",
        "  app.conf.y = 2",
        "  see docs/doctor.md#groupcheck_4",
        "",
        "WARN group.check_1: 4 of 4: Soon.",
        "  app.conf.x = 1",
        "  see docs/doctor.md#groupcheck_1",
        "",
        "unknown group.check_2, group.check_3: Nobody knows.",
        "",
        "ok group.check_0  3 of 4: All is well.",
        "ok group.check_5  3 of 4: All is well.",
    ]


def test_on_a_terminal_only_what_is_to_be_pasted_may_be_longer_than_a_line() -> None:
    long = warn("word " * 40, "5 of 4", fix="app.conf.broker_transport_options = {'visibility_timeout': 43200, 'x': 1}")
    results = (CheckResult(Check("redis.memory", "", lambda _: []), long), *diagnosis("ok", "unknown").results)
    lines = diagnosis_text(Diagnosis("proj", 0.0, results), width=60).splitlines()
    assert [line for line in lines if len(line) > 60] == [f"  {long.fix}"]
    assert sum(line.lower().count("word") for line in lines) == 40


def test_who_wants_no_good_news_gets_none() -> None:
    lines = diagnosis_text(diagnosis("ok", "warn", "ok", "unknown"), quiet=True).splitlines()
    assert not [line for line in lines if line.startswith("ok ")]
    assert lines[-1].startswith("unknown")


def test_what_several_lines_in_a_row_are_about_is_said_once() -> None:
    check = Check("redis.memory", "", lambda _: [])
    results = [CheckResult(check, ok("well", subject=subject)) for subject in ("a", "a", "b", "")]
    lines = diagnosis_text(Diagnosis("", 0.0, tuple(results))).splitlines()[3:]
    assert [line.removeprefix("ok redis.memory  ") for line in lines] == ["Well. (a)", "Well.", "Well. (b)", "Well."]


def test_what_others_named_cannot_move_the_cursor() -> None:
    hostile = fail("\x1b[2J", "\r\n", fix="\x1b]0;x\x07", subject="a\x1b[0m")
    text = diagnosis_text(Diagnosis("\x1b[1m", 0.0, (CheckResult(Check("a.b", "", lambda _: []), hostile),)))
    assert all(line.isprintable() for line in text.splitlines())


def test_json_has_all_of_it() -> None:
    found = json.loads(json.dumps(diagnosis("ok", "fail").to_json()))
    assert {name: found[name] for name in ("schema", "app", "verdict", "health", "score", "exit_code", "counts")} == {
        "schema": 1,
        "app": "proj",
        "verdict": "fail",
        "health": "FAIR",
        "score": 75,
        "exit_code": 2,
        "counts": {"fail": 1, "warn": 0, "unknown": 0, "ok": 1},
    }
    assert found["checks"][1] == {
        "id": "group.check_1",
        "group": "group",
        "subject": "",
        "looks_at": "something",
        "verdict": "fail",
        "reason": "now",
        "figure": "5 of 4",
        "fix": "app.conf.x = 1\napp.conf.y = 2",
        "docs": "docs/doctor.md#groupcheck_1",
        "vital": False,
    }


def test_without_an_app_or_a_redis_it_says_so_and_goes_on() -> None:
    found = diagnose(seconds=5)
    reasons = {one.check.id: one.outcome.reason for one in found.results if one.outcome.verdict == "unknown"}
    assert reasons["monitor.installed"] == reasons["workers.answering"] == NO_APP
    assert any(one.check.id.startswith("host.") and one.outcome.verdict == "ok" for one in found.results)
    assert isinstance(found.results[0].outcome, Outcome)


@pytest.mark.parametrize("broken", ["config", "task", "exit", "import"])
def test_an_app_that_cannot_be_loaded_is_what_fails(broken: str, tmp_path: Any, monkeypatch: Any) -> None:
    """And its errors are not quoted: their text may have a password."""
    module = f"broken_by_{broken}"
    raises = {"exit": "raise SystemExit(3)", "import": "raise ImportError('redis://:sesame@host')"}.get(broken, "")
    (tmp_path / f"{module}.py").write_text(raises)
    monkeypatch.syspath_prepend(str(tmp_path))
    app = Celery("broken", broker="redis://localhost:1/0", include=[module])
    if broken == "config":
        app.config_from_object("no_such_module")
    if broken == "task":
        make: Any = app.task(name="bad", base=int, shared=False)
        make(lambda: None)
    found = diagnose(app, seconds=5)
    (said,) = (one.outcome for one in found.results if one.check.id == "settings.imports")
    assert said.verdict == "fail"
    assert said.figure
    assert "sesame" not in str(found.to_json())
    assert {"ok"} <= {one.outcome.verdict for one in found.results if one.check.id.startswith("host.")}


@pytest.mark.parametrize("conf", ["no_such_module", {"BROKER_URL": "redis://localhost", "task_serializer": "json"}])
def test_of_an_app_without_a_configuration_nothing_else_is_said(conf: Any) -> None:
    app = Celery("broken")
    app.config_from_object(conf if isinstance(conf, str) else type("Mixed", (), conf))
    found = diagnose(app, seconds=5)
    said = {
        one.outcome.reason
        for one in found.results
        if one.outcome.verdict == "unknown" and one.check.id.partition(".")[0] != "host"
    }
    assert said == {"the app cannot be loaded, see settings.imports"}
    assert found.health == "CRITICAL"
