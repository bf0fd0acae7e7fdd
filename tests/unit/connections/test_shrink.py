"""How far the pools of live workers are to shrink, out of what they tell."""

from __future__ import annotations

from typing import Any

from celery import Celery
from hypothesis import given, strategies as st

from celery_argsize import connection_budget
from celery_argsize.connections.shrink import Shrink, forecast, plan_shrink

REDIS = "redis://127.0.0.1:1/0"  # nobody listens there


def app(backend: str = REDIS) -> Celery:
    return Celery("counted", broker=REDIS, backend=backend, set_as_current=False)


def prefork(processes: int, **more: Any) -> dict[str, Any]:
    pool = {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": processes}
    return {"pool": {**pool, "processes": list(range(processes))}, **more}


SOLO = {"pool": {"implementation": "celery.concurrency.solo:TaskPool", "max-concurrency": 1, "processes": [7]}}
THREADS = {"pool": {"implementation": "celery.concurrency.thread:TaskPool", "max-concurrency": 5, "threads": 2}}


class TestAPlanToShrink:
    def test_is_empty_where_all_fits(self) -> None:
        assert plan_shrink({"a": prefork(6)}, connection_budget(app(), 100)) == []
        assert plan_shrink({}, connection_budget(app(), 30)) == []

    def test_makes_it_fit_and_no_smaller_than_that(self) -> None:
        stats = {"a": prefork(6)}
        budget = connection_budget(app(), 35)
        (step,) = plan_shrink(stats, budget)
        assert step == Shrink("a", 6, 3)
        assert forecast(stats, budget)["127.0.0.1:1"] == 13 + 24 + 4 + 5
        assert forecast(stats, budget, [step]) == {"127.0.0.1:1": 34}
        assert forecast(stats, budget, [Shrink("a", 6, 4)]) == {"127.0.0.1:1": 38}

    def test_says_the_same_as_the_budget(self) -> None:
        budget = connection_budget(app(), workers=2, concurrency=3, beat=True)
        assert forecast({"a": prefork(3), "b": prefork(3)}, budget) == budget.servers

    def test_is_in_proportion(self) -> None:
        budget = connection_budget(app(), 96, producers=0, inspectors=0)
        stats = {"a": prefork(12), "b": prefork(24), "c": prefork(1)}
        assert plan_shrink(stats, budget) == [Shrink("a", 12, 4), Shrink("b", 24, 9)]

    def test_leaves_what_is_not_prefork_but_counts_it(self) -> None:
        budget = connection_budget(app(), 70, producers=0, inspectors=0)
        alone = plan_shrink({"a": prefork(20)}, budget)
        beside = plan_shrink({"a": prefork(20), "s": SOLO, "t": THREADS}, budget)
        assert [step.node for step in beside] == ["a"]
        assert beside[0].to < alone[0].to

    def test_takes_an_autoscaler_at_its_most(self) -> None:
        scaled = prefork(2, autoscaler={"max": 10, "min": 1, "current": 2, "qty": 0})
        assert plan_shrink({"a": scaled}, connection_budget(app(), 35)) == [Shrink("a", 10, 3)]

    def test_counts_where_results_are(self) -> None:
        apart = connection_budget(app(backend="redis://other"), 40, producers=0, inspectors=0)
        assert plan_shrink({"a": prefork(20)}, apart) == [Shrink("a", 20, 14)], (
            "10 + 2 x 14 on one, 3 + 2 x 14 on the other"
        )

    def test_goes_on_without_a_telling_reply(self) -> None:
        for reply in ({}, {"error": "x"}, {"pool": "N/A"}):
            assert plan_shrink({"a": reply}, connection_budget(app(), 5)) == []

    @given(st.dictionaries(st.text(max_size=3), st.integers(1, 40), min_size=1, max_size=8), st.integers(20, 400))
    def test_fits_if_anything_does_and_is_never_below_one(self, sizes: dict[str, int], max_clients: int) -> None:
        stats = {node: prefork(size) for node, size in sizes.items()}
        budget = connection_budget(APP, max_clients, beat=False)
        plan = plan_shrink(stats, budget)
        assert all(1 <= step.to < step.now == sizes[step.node] for step in plan)

        def fits(steps: list[Shrink]) -> bool:
            return (forecast(stats, budget, steps)["127.0.0.1:1"] or 0) <= max_clients - 1

        smallest = [Shrink(node, size, 1) for node, size in sizes.items()]
        assert fits(plan) == fits(smallest)
        assert bool(plan) == (not fits([]) and any(size > 1 for size in sizes.values()))
        if plan and fits(plan):
            roomier = [replace_to(plan[0], plan[0].to + 1), *plan[1:]]
            assert not fits(roomier), "no process goes that could stay"


APP = app()


def replace_to(step: Shrink, to: int) -> Shrink:
    return step._replace(to=to)
