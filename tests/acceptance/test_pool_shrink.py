"""Pools of real workers shrink by remote control: processes and connections go, tasks do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cluster import Cluster
from support import wait_until

from celery_argsize import connection_budget
from celery_argsize.shrink import Shrink, apply_shrink, forecast, plan_shrink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

NODE = "worker@host"


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def stats(app: Celery) -> dict[str, Any]:
    return app.control.inspect(timeout=5, destination=[NODE]).stats() or {}


def processes(app: Celery) -> int:
    return len(stats(app)[NODE]["pool"]["processes"])


def running(app: Celery) -> int:
    return len((app.control.inspect(timeout=5, destination=[NODE]).active() or {})[NODE])


def results(sent: list[Any]) -> list[Any]:
    return [result.get(timeout=30) for result in sent]


def busy_everywhere(app: Celery, children: int) -> None:
    """Make every child open all it opens."""
    for _ in range(2):
        results([app.send_task("nap", (0.3,)) for _ in range(children)])
    done = app.send_task("add", (1, 2))
    assert done.get(timeout=30) == 3
    results([app.send_task("publish") for _ in range(20 * children)])
    results([app.send_task("wait_for", (done.id,)) for _ in range(20 * children)])


def test_a_pool_shrinks_to_what_fits_and_running_tasks_go_on(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "-c", "6")
    busy_everywhere(app, 6)
    budget = connection_budget(app, 35)
    found = stats(app)
    plan = plan_shrink(found, budget)
    assert plan == [Shrink(NODE, 6, 3)]
    before = cluster.clients()
    napping = [app.send_task("nap", (2,)) for _ in range(2)]
    wait_until(lambda: running(app) == 2)
    assert apply_shrink(app, plan) == {NODE: "6 → 3 processes"}
    assert processes(app) == 3
    assert results(napping) == [2, 2]
    assert results([app.send_task("add", (n, n)) for n in range(50)]) == [2 * n for n in range(50)]
    busy_everywhere(app, 3)
    after = cluster.clients()
    assert before - after == 3 * 4, "three children went, and what each had opened"
    assert after <= (forecast(found, budget, plan)[f"127.0.0.1:{cluster.redis.port}"] or 0) < 35
    assert plan_shrink(stats(app), budget) == [], "and that is enough"
    assert stats(app)[NODE]["prefetch_count"] == 3 * 4, "it takes no more tasks ahead than three processes do"


def test_busy_processes_are_left_to_end_their_tasks(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "-c", "3")
    napping = [app.send_task("nap", (8,)) for _ in range(2)]
    wait_until(lambda: running(app) == 2)
    outcome = apply_shrink(app, [Shrink(NODE, 3, 1)], timeout=2)
    assert outcome == {NODE: "3 → 2 processes so far; the others are busy or ending: run it again to get to 1"}
    assert apply_shrink(app, [Shrink(NODE, 2, 1)], timeout=20) == {NODE: "2 → 1 processes"}
    assert results(napping) == [8, 8]
    assert results([app.send_task("add", (1, 1)) for _ in range(10)]) == [2] * 10


def test_an_autoscaler_gets_a_smaller_range(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "--autoscale", "6,3")
    results([app.send_task("nap", (1,)) for _ in range(6)])
    assert processes(app) == 6
    plan = plan_shrink(stats(app), connection_budget(app, 31))
    assert plan == [Shrink(NODE, 6, 2)]
    assert apply_shrink(app, plan) == {NODE: "autoscales up to 2 now, instead of 6"}
    scaler = stats(app)[NODE]["autoscaler"]
    assert (scaler["max"], scaler["min"], processes(app)) == (2, 2, 2)
    assert results([app.send_task("nap", (0.5,)) for _ in range(6)]) == [0.5] * 6
    assert processes(app) == 2, "and it does not grow again"


def test_what_cannot_shrink_says_so(cluster: Cluster) -> None:
    app = cluster.app(broker_pool_limit=1)  # inspect would wait for ever with this one
    cluster.worker("worker", "-P", "solo")
    outcome = apply_shrink(app, [Shrink(NODE, 2, 1), Shrink("gone@host", 2, 1)], timeout=2)
    assert outcome[NODE].startswith("left as it is: only a prefork pool has processes")
    assert outcome["gone@host"].startswith("did not answer")
    assert apply_shrink(app, []) == {}


def test_a_worker_that_is_small_enough_by_now_is_left_alone(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "-c", "2")
    assert apply_shrink(app, [Shrink(NODE, 6, 3)]) == {NODE: "has 2 processes by now: nothing to do"}
    assert processes(app) == 2
