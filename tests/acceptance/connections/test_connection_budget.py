"""What a cluster really opens on a real Redis, under a load that opens all there is, against what the budget says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.cluster import Cluster, Sampler

from celery_argsize import ConnectionBudget, connection_budget
from celery_argsize.connections.model import lines_of

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 4


def measure(cluster: Cluster, budget: ConnectionBudget) -> int:
    """Run all that *budget* counts, under load; give the most clients there were at once."""
    setup = budget.setup
    options = ["-P", setup.pool, "-c", str(setup.concurrency), *([] if setup.gossip else ["--without-gossip"])]
    with Sampler(cluster.redis) as sampler:
        for number in range(setup.workers):
            cluster.worker(f"worker{number}", *options)
        if setup.beat:
            cluster.beat()
        load = [
            *(
                cluster.start(f"producer{n}", "connected.py", "produce", str(setup.threads), str(SECONDS))
                for n in range(setup.producers)
            ),
            *(cluster.start(f"inspector{n}", "connected.py", "inspect", str(SECONDS)) for n in range(setup.inspectors)),
        ]
        codes = [process.wait(40) for process in load]
    logs = cluster.logs()
    assert codes == [0] * len(load), logs
    for words in ("Too many connections", "max number of clients", "ConnectionError", "raised unexpected", "Traceback"):
        assert words not in logs, logs
    with cluster.redis.client() as client:
        assert client.info("stats")["rejected_connections"] == 0
    return sampler.most


@pytest.mark.slow
@pytest.mark.parametrize(
    "around",
    [{"beat": True}, {"beat": False, "gossip": False, "threads": 3}],
    ids=["with Beat", "with threads that send"],
)
def test_what_is_recommended_for_thirty_clients_stays_within_them(tmp_path: Path, around: dict[str, Any]) -> None:
    with Cluster(tmp_path, max_clients=40) as cluster:
        app = cluster.app()
        asked = connection_budget(app, 30, concurrency=4, **around)
        assert not asked.fits
        assert asked.settings is not None
        exec("\n".join(lines_of(asked.settings)), {"app": app})  # noqa: S102 - as a person who pastes them
        budget = connection_budget(app, 30, **around)
        assert budget.fits
        cluster.conf = {name: app.conf.get(name) for name in SETTINGS}
        most = measure(cluster, budget)
        report(budget, most)
        assert most <= (budget.at_most or 0) < 30


SETTINGS = (
    "worker_concurrency",
    "broker_pool_limit",
    "broker_transport_options",
    "redis_max_connections",
    "result_backend_thread_safe",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "conf"),
    [
        pytest.param({"concurrency": 2}, {}, marks=pytest.mark.smoke),
        ({"concurrency": 5, "threads": 3}, {"worker_max_tasks_per_child": 30}),
        ({"concurrency": 2, "workers": 2, "producers": 2}, {"broker_pool_limit": None}),
        ({"pool": "solo"}, {}),
        ({"pool": "threads", "concurrency": 4}, {}),
        ({"pool": "threads", "concurrency": 4}, {"result_backend_thread_safe": True}),
        ({"pool": "gevent", "concurrency": 4}, {"result_backend_thread_safe": True}),
    ],
    ids=[
        "prefork",
        "wider, with new children all the time",
        "two workers, no publishing pool",
        "solo",
        "threads",
        "threads, shared backend",
        "gevent",
    ],
)
def test_never_more_than_the_budget_says_and_not_far_less(
    tmp_path: Path, sizes: dict[str, Any], conf: dict[str, Any]
) -> None:
    with Cluster(tmp_path, conf) as cluster:
        budget = connection_budget(cluster.app(), 100, beat=True, **sizes)
        most = measure(cluster, budget)
        report(budget, most)
        assert budget.at_most is not None
        assert most <= budget.at_most <= 1.5 * most


def report(budget: ConnectionBudget, most: int) -> None:
    """Shown with ``pytest -rP``: what docs/connections.md has in its table."""
    print(f"{budget.setup.pool}: at most {budget.at_most}, measured {most}, {(budget.at_most or 0) / most:.2f}")  # noqa: T201 - see above
