"""How far the pools of live workers are to shrink, out of what they tell."""

from __future__ import annotations

from typing import Any

from celery import Celery
from hypothesis import given, strategies as st

from celery_argsize import connection_budget
from celery_argsize.doctor.facts import Node
from celery_argsize.doctor.judge.redis_clients import opened_by
from celery_argsize.doctor.shrink import plan_shrink

REDIS = "redis://127.0.0.1:1/0"  # nobody listens there


def app(backend: str = REDIS) -> Celery:
    return Celery("counted", broker=REDIS, backend=backend, set_as_current=False)


def prefork(name: str, processes: int, **stats: Any) -> Node:
    return Node(name=name, pool="prefork", concurrency=processes, stats=stats)


SOLO = Node(name="s", pool="solo", concurrency=1)
THREADS = Node(name="t", pool="thread", concurrency=5)


class TestAPlanToShrink:
    def test_is_empty_where_all_fits(self) -> None:
        assert plan_shrink([prefork("a", 6)], connection_budget(app(), 100)) == {}
        assert plan_shrink([], connection_budget(app(), 30)) == {}

    def test_makes_it_fit_and_no_smaller_than_that(self) -> None:
        nodes = [prefork("a", 6)]
        budget = connection_budget(app(), 35)
        plan = plan_shrink(nodes, budget)
        assert plan == {"a": 3}
        assert opened_by(nodes, budget)["127.0.0.1:1"] == 13 + 24 + 4 + 5
        assert opened_by(nodes, budget, plan) == {"127.0.0.1:1": 34}
        assert opened_by(nodes, budget, {"a": 4}) == {"127.0.0.1:1": 38}

    def test_says_the_same_as_the_budget(self) -> None:
        budget = connection_budget(app(), workers=2, concurrency=3, beat=True)
        assert opened_by([prefork("a", 3), prefork("b", 3)], budget) == budget.servers

    def test_is_in_proportion(self) -> None:
        budget = connection_budget(app(), 96, producers=0, inspectors=0)
        nodes = [prefork("a", 12), prefork("b", 24), prefork("c", 1)]
        assert plan_shrink(nodes, budget) == {"a": 4, "b": 9}

    def test_leaves_what_is_not_prefork_but_counts_it(self) -> None:
        budget = connection_budget(app(), 70, producers=0, inspectors=0)
        alone = plan_shrink([prefork("a", 20)], budget)
        beside = plan_shrink([prefork("a", 20), SOLO, THREADS], budget)
        assert [*beside] == ["a"]
        assert beside["a"] < alone["a"]

    def test_takes_an_autoscaler_at_its_most(self) -> None:
        scaled = prefork("a", 2, autoscaler={"max": 10, "min": 1, "current": 2, "qty": 0})
        assert plan_shrink([scaled], connection_budget(app(), 35)) == {"a": 3}

    def test_counts_where_results_are(self) -> None:
        apart = connection_budget(app(backend="redis://other"), 40, producers=0, inspectors=0)
        assert plan_shrink([prefork("a", 20)], apart) == {"a": 14}, "10 + 2 x 14 on one, 3 + 2 x 14 on the other"

    def test_goes_on_without_a_telling_reply(self) -> None:
        assert plan_shrink([Node(name="a")], connection_budget(app(), 5)) == {}

    @given(st.dictionaries(st.text(max_size=3), st.integers(1, 40), min_size=1, max_size=8), st.integers(20, 400))
    def test_fits_if_anything_does_and_is_never_below_one(self, sizes: dict[str, int], max_clients: int) -> None:
        nodes = [prefork(name, size) for name, size in sizes.items()]
        budget = connection_budget(APP, max_clients, beat=False)
        plan = plan_shrink(nodes, budget)
        assert all(1 <= to < sizes[name] for name, to in plan.items())

        def fits(steps: dict[str, int]) -> bool:
            return (opened_by(nodes, budget, steps)["127.0.0.1:1"] or 0) <= max_clients - 1

        assert fits(plan) == fits(dict.fromkeys(sizes, 1))
        assert bool(plan) == (not fits({}) and any(size > 1 for size in sizes.values()))
        if plan and fits(plan):
            first = next(iter(plan))
            assert not fits({**plan, first: plan[first] + 1}), "no process goes that could stay"


APP = app()
