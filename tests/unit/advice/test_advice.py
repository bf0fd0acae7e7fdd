"""Advice, carried out: what it promises is published again under the limits it gives, and the truncated are counted."""

from __future__ import annotations

import json
import os
import random
import string
import time
from typing import TYPE_CHECKING, Any

import celery
import pytest
from celery.utils.saferepr import saferepr
from support.simulate import fresh_app, observe, publish, receive

from celery_argsize.advice.adviser import advise
from celery_argsize.advice.brokers import OTHER_HEADERS, broker_of
from celery_argsize.advice.limits import set_app_limits, set_repr_limits
from celery_argsize.advice.plans import ReprSpeed
from celery_argsize.advice.publish_cost import measure_repr_speed
from celery_argsize.views.advice_text import advice_text

if TYPE_CHECKING:
    from support.simulate import Call

    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary

#: WORKLOADS=10000 make test ARGS="-k cures_all" takes its time.
WORKLOADS = int(os.environ.get("WORKLOADS", "1000"))
RUNS = 30


def carry_out(advice: Advice) -> Any:
    """A fresh app on which *advice* is applied."""
    app = fresh_app()
    if advice.limits is not None:
        set_app_limits(app, advice.limits)
    set_repr_limits(app, advice.per_task)
    return app


def truncated_parts(app: Any, calls: dict[str, list[Call]]) -> dict[str, int]:
    """Truncated reprs by task, counted one by one."""
    cut = {}
    for task, seen in calls.items():
        found = [receive(task, publish(app, task, call)) for call in seen]
        cut[task] = sum(part.truncated for measured in found for part in (measured.args, measured.kwargs))
    return cut


# -- workloads ---------------------------------------------------------------------------------------------------------


def text(rng: random.Random, longest: int = 40) -> str:
    alphabet = rng.choice([string.ascii_letters + "  ", "éüà'ñ ", "\"\\\n'", "日本語", "🎵🎶 ", "0123456789,: "])
    return "".join(rng.choices(alphabet, k=rng.randint(0, longest)))


def scalar(rng: random.Random) -> Any:
    return rng.choice([None, True, rng.randint(-9, 10 ** rng.randint(1, 18)), rng.random() * 100, text(rng)])


def record(rng: random.Random, depth: int) -> Any:
    if depth <= 0:
        return scalar(rng)
    if rng.random() < 0.6:
        return {f"key_{n}": record(rng, depth - rng.randint(1, 3)) for n in range(rng.randint(1, 5))}
    return [record(rng, depth - rng.randint(1, 3)) for _ in range(rng.randint(0, 5))]


def call_of(rng: random.Random, kind: str, most: int) -> Call:
    count = rng.randint(0, most)
    match kind:
        case "records":
            args: tuple[Any, ...] = ([{"id": n, "title": text(rng), "ok": True} for n in range(count)],)
        case "nested":
            args = ([record(rng, 5) for _ in range(count // 2)],)
        case "ids":
            args = ([*range(count * 6)], text(rng))
        case "text":
            args = (text(rng, count * 40), text(rng))
        case "matrix":
            args = ([[rng.random() for _ in range(5)] for _ in range(count)],)
        case _:
            args = (count,)
    kwargs = {"batch": args[0], "note": text(rng, 200)} if rng.random() < 0.3 else {"note": text(rng, 1200)}
    return (args, {}) if rng.random() < 0.6 else (args[1:], kwargs)


def workload(seed: int) -> dict[str, list[Call]]:
    rng = random.Random(seed)
    calls = {}
    for number in range(rng.randint(1, 3)):
        kind = rng.choice(["records", "nested", "ids", "text", "matrix", "small"])
        most = rng.choice([3, 20, 60])
        calls[f"task_{number}"] = [call_of(rng, kind, most) for _ in range(RUNS)]
        if rng.random() < 0.1:  # an outlier
            calls[f"task_{number}"].append(call_of(rng, kind, most * 40))
    return calls


def by_the_guide(summary: Summary) -> Any:
    """A fresh app on which the size guide's tier is applied."""
    app = fresh_app()
    tier = advise(summary).rule_of_thumb.tier
    if tier is not None:
        app.amqp.argsrepr_maxsize = app.amqp.kwargsrepr_maxsize = tier
    return app


@pytest.mark.slow
@pytest.mark.timeout(WORKLOADS)
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_what_is_advised_cures_all_that_it_says(broker: str, capsys: pytest.CaptureFixture[str]) -> None:
    cured = guided = cases = incurable = 0
    half = WORKLOADS // 2
    for seed in range(half) if broker == "redis" else range(half, WORKLOADS):
        calls = workload(seed)
        app = fresh_app()
        summary = observe(app, calls)
        before = truncated_parts(app, calls)
        advice = advise(summary, broker, celery.__version__, min_runs=RUNS)
        assert {task.name: task.truncated_parts for task in advice.tasks} == {k: n for k, n in before.items() if n}
        if not advice.tasks:
            continue
        cases += 1
        after = truncated_parts(carry_out(advice), calls)
        left = {task.name: task.truncated_parts - task.cured for task in advice.tasks}
        whole = {name: need for name, need in left.items() if not need}
        assert all(after[name] == 0 for name in whole), (seed, after, left)
        assert all(after[name] <= need for name, need in left.items()), (seed, after, left)
        assert all(task.verdict != "apply" or advice.limits for task in advice.tasks)
        cured += not any(after.values())
        incurable += any(left.values())
        assert any(left.values()) or not any(after.values())
        guided += not any(truncated_parts(by_the_guide(summary), calls).values())
    with capsys.disabled():
        print(  # noqa: T201 - the rule of thumb beside it, for whoever reads the log
            f"\n{broker}: of {cases:,} workloads with truncated reprs, the advice leaves none truncated in {cured:,}"
            f" (named as not curable: {incurable:,}); the size guide's rule in {guided:,}"
        )
    assert cured + incurable == cases
    assert cured > guided


@pytest.mark.parametrize("seed", range(60))
def test_on_amqp_no_advised_limit_lets_headers_outgrow_a_frame(seed: int) -> None:
    calls = workload(seed)
    advice = advise(observe(fresh_app(), calls), "amqp", celery.__version__, min_runs=1)
    app = carry_out(advice)
    most = broker_of("amqp").headers_max or 0
    for task, seen in calls.items():
        for call in seen:
            headers = publish(app, task, call).headers
            taken = len((headers["argsrepr"] + headers["kwargsrepr"]).encode())
            assert taken + OTHER_HEADERS <= most


# -- verdicts ----------------------------------------------------------------------------------------------------------

DEEP: Call = (([{"id": 1, "tags": ["rock"]}],), {})


def advice_on(
    *calls: Call, broker: str | None = "redis", version: str = "5.7.0", times: int = RUNS, **more: Any
) -> Advice:
    return advise(observe(fresh_app(), {"scan": [*calls] * times}), broker, version, **more)


def records(count: int) -> Call:
    return ([{"id": n, "title": f"Song {n}", "ok": True} for n in range(count)],), {}


def test_nothing_was_cut() -> None:
    advice = advice_on((("x",), {}))
    assert (advice.verdict, advice.lines, advice.tasks) == ("nothing", (), ())


def test_too_few_runs_are_the_answer() -> None:
    advice = advice_on(records(100), times=29)
    assert (advice.verdict, advice.tasks[0].verdict, advice.lines) == ("too_few", "too_few", ())
    assert "29" in advice.tasks[0].reasons[0]
    assert advice_on(records(100), times=30).verdict == "apply"
    assert advice_on((("x",), {}), times=3).verdict == "too_few"


def test_depth_is_cured_by_levels_where_celery_has_them_and_by_task_where_not() -> None:
    advice = advice_on(DEEP, version="5.7.0")
    assert advice.verdict == "apply"
    assert advice.lines[1:] == ("app.conf.task_repr_maxlevels = 4",)
    for version in ("5.6.2", "5.3.6", "not a version"):
        old = advice_on(DEEP, version=version)
        assert (old.verdict, old.limits) == ("apply_only", None)
        assert old.per_task["scan"].levels == 4
        assert "5.7" in old.reasons[0]
        assert not any(truncated_parts(carry_out(old), {"scan": [DEEP]}).values())


def test_an_outlier_over_every_tier_leaves_the_limit_for_the_rest() -> None:
    calls = [records(50)] * 199 + [records(60_000)]
    advice = advise(observe(fresh_app(), {"scan": calls}), "redis", "5.7.0")
    (task,) = advice.tasks
    assert (task.verdict, task.truncated_parts, task.cured) == ("apply", 200, 199)
    assert "largest 1 %" in task.reasons[0]
    assert truncated_parts(carry_out(advice), {"scan": calls}) == {"scan": 1}


def test_the_p99_limit_is_shown_beside_the_one_for_all() -> None:
    calls = [records(50)] * 199 + [records(4000)]
    (task,) = advise(observe(fresh_app(), {"scan": calls}), "redis", "5.7.0").tasks
    (part,) = task.parts
    assert (part.limit, part.cured, part.p99_limit, part.p99_cured) == (524_288, 200, 131_072, 199)


def test_what_does_not_fit_a_frame_is_refused_and_says_so() -> None:
    small, big = advice_on(records(3000), broker="amqp"), advice_on(records(6000), broker="pyamqp://host//")
    assert (small.verdict, big.verdict) == ("short_argsrepr", "pass_reference")
    assert "131,064 bytes" in small.tasks[0].reasons[0]
    assert 'argsrepr="' in small.tasks[0].lines[1]
    assert "args=(key,)" in big.tasks[0].lines[1]
    assert not small.lines + big.lines
    assert advice_on(records(3000), broker="redis").verdict == "apply"


def test_both_parts_share_the_frame() -> None:
    half = [{"id": n, "title": f"Song {n}"} for n in range(2000)]
    assert advice_on(((half,), {}), broker="amqp").verdict == "apply"
    both = advice_on(((half,), {"more": half}), broker="amqp")
    assert both.verdict == "short_argsrepr"


def test_characters_of_many_bytes_share_it_too() -> None:
    ascii_only, cjk = advice_on((("a" * 60_000,), {}), broker="amqp"), advice_on((("語" * 60_000,), {}), broker="amqp")
    assert (ascii_only.verdict, cjk.verdict) == ("apply", "short_argsrepr")


def test_a_rare_text_of_many_bytes_counts_for_the_limit_of_all() -> None:
    texts = ["x" * 10_000] * 95 + ["語" * 60_000] * 4 + ["x" * 200_000]
    calls: list[Call] = [((text,), {}) for text in texts]
    advice = advise(observe(fresh_app(), {"scan": calls}), "amqp", celery.__version__)
    app = carry_out(advice)
    for call in calls:
        headers = publish(app, "scan", call).headers
        assert len((headers["argsrepr"] + headers["kwargsrepr"]).encode()) + OTHER_HEADERS <= 131_064


def test_the_guides_tier_is_kept_and_said_to_be_harmful_where_it_is() -> None:
    on_amqp, on_redis = advice_on(records(100), broker="amqp"), advice_on(records(100), broker="redis")
    assert on_amqp.rule_of_thumb == on_redis.rule_of_thumb
    assert on_amqp.rule_of_thumb.tier == 131_072
    assert "131,064 bytes" in on_amqp.against_the_guide
    assert not on_redis.against_the_guide


@pytest.mark.parametrize(("broker", "verdict"), [("sqs", "pass_reference"), ("azurestoragequeues", "pass_reference")])
def test_a_message_that_the_broker_would_refuse(broker: str, verdict: str) -> None:
    advice = advice_on((("x" * 400_000,), {}), broker=broker)
    assert advice.verdict == verdict
    assert "bytes, and the broker takes" in advice.tasks[0].reasons[0]


@pytest.mark.parametrize("broker", [None, "sqlalchemy+postgresql://host/db", "qpid://host", "my.own:Transport"])
def test_an_unknown_broker_is_said_to_be_unknown(broker: str | None) -> None:
    advice = advice_on(records(100), broker=broker)
    assert advice.verdict == "apply"
    assert advice.broker.carries is None
    assert advice.broker.headers_max is advice.broker.message_max is None


@pytest.mark.parametrize(("seconds", "verdict"), [(0.009, "apply"), (0.011, "short_argsrepr")])
def test_what_makes_publishing_too_slow_is_refused(seconds: float, verdict: str) -> None:
    def advice_at(speed: float) -> Advice:
        return advice_on(records(100), repr_speed=ReprSpeed(speed, 2 * speed, 2 * speed, speed / 100, 0.0))

    def slower(advice: Advice) -> float:
        (task,) = advice.tasks
        assert task.cost is not None
        assert task.cost.publish_seconds is not None
        return task.cost.publish_seconds

    advice = advice_at(1e-6 * seconds / slower(advice_at(1e-6)))
    assert advice.verdict == verdict
    assert slower(advice) == pytest.approx(seconds)


SHAPES: dict[str, Any] = {
    "records": [{"id": n, "title": f"Song {n}", "ok": True} for n in range(1000)],
    "tiny dicts": [{"a": 1} for _ in range(2000)],
    "numbers": [*range(20_000)],
    "a text": "x" * 2_000_000,
    "a text of wide characters": "語" * 500_000,
    "texts": ["a few words"] * 3000,
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_predicted_publish_time_is_near_the_measured_one(name: str) -> None:
    """benchmarks/ADVICE.md has fifty kinds, and a factor of 2."""

    def seconds(limit: int) -> float:
        times = []
        for _ in range(3):
            began = time.thread_time()
            saferepr((SHAPES[name],), limit)
            times.append(time.thread_time() - began)
        return min(times)

    (task,) = advice_on(((SHAPES[name],), {}), times=1, min_runs=1, repr_speed=measure_repr_speed()).tasks
    assert task.cost is not None
    assert task.cost.publish_seconds is not None
    measured = seconds(2_097_152) - seconds(1024)
    assert measured / 3 < task.cost.publish_seconds < measured * 3


def test_one_bad_task_keeps_the_limits_to_the_good_ones() -> None:
    calls = {"good": [records(50)] * RUNS, "bad": [records(3000)] * RUNS}
    advice = advise(observe(fresh_app(), calls), "amqp", "5.7.0")
    assert advice.verdict == "apply_only"
    assert {task.name: task.verdict for task in advice.tasks} == {"good": "apply_only", "bad": "short_argsrepr"}
    assert "harm bad" in advice.reasons[0]
    assert advice.per_task.keys() == {"good"}
    assert truncated_parts(carry_out(advice), calls) == {"good": 0, "bad": RUNS}


def test_a_task_seen_too_rarely_keeps_limits_from_all() -> None:
    calls = {"known": [records(50)] * RUNS, "rare": [records(6000)]}
    advice = advise(observe(fresh_app(), calls), "redis", "5.7.0")
    assert (advice.verdict, [*advice.per_task]) == ("apply_only", ["known"])
    assert "rare is not known yet" in advice.reasons[0]


def test_numbers_come_with_their_sample_and_period() -> None:
    advice = advise(observe(fresh_app(), {"scan": [records(50)] * RUNS}, seconds=86_400), "redis", "5.7.0")
    (task,) = advice.tasks
    assert (advice.total_tasks, task.count, task.truncated) == (RUNS, RUNS, RUNS)
    assert advice.since is not None
    assert advice.updated is not None
    assert task.cost is not None
    assert task.cost.count == RUNS
    assert task.cost.extra_bytes_a_day == pytest.approx(task.cost.extra_bytes * RUNS, rel=1e-6)


def test_as_json() -> None:
    data = json.loads(json.dumps(advice_on(DEEP).to_json()))
    assert (data["verdict"], data["truncated"], data["cured"]) == ("apply", RUNS, RUNS)
    assert data["tasks"]["scan"]["parts"][0]["truncated_by"] == {"size": 0, "depth": RUNS, "both": 0}
    assert data["limits"] == {"args": 1024, "kwargs": 1024, "levels": 4}


def test_as_text() -> None:
    text = advice_text(advice_on(DEEP))
    assert text.startswith("=== CELERY REPR ADVICE ===\nVerdict: APPLY these limits, for all tasks\n")
    assert "of 30 seen truncated, 30 would be whole" in text
    assert "    app.conf.task_repr_maxlevels = 4" in text
    assert "rule of thumb" in text
