"""Pools of real workers shrink by remote control: processes and connections go, tasks do not."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import psutil
import pytest
import redis
from support.cluster import Cluster
from support.servers import wait_until

from celery_argsize import connection_budget
from celery_argsize.commands.doctor import shrink_pools
from celery_argsize.doctor.checks import fail, ok
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.judge.redis_clients import opened_by
from celery_argsize.doctor.look.workers import look_at_workers
from celery_argsize.doctor.shrink import apply_shrink, plan_shrink

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from celery import Celery

    from celery_argsize.doctor.facts import Node

NODE = "worker@host"


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def nodes(app: Celery) -> tuple[Node, ...]:
    return look_at_workers(Scope(app, seconds=8)).nodes


def stats(app: Celery) -> dict[str, Any]:
    return app.control.inspect(timeout=5, destination=[NODE]).stats() or {}


def processes(app: Celery) -> int:
    return len(stats(app)[NODE]["pool"]["processes"])


def running(app: Celery) -> int:
    return len((app.control.inspect(timeout=5, destination=[NODE]).active() or {})[NODE])


def results(sent: list[Any]) -> list[Any]:
    return [result.get(timeout=30) for result in sent]


def children(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(worker.pid).children()
    return found


def opened(cluster: Cluster, worker: subprocess.Popen[bytes]) -> list[int]:
    """Connections of each child to the Redis."""
    peers = ([one.raddr for one in child.net_connections()] for child in children(worker))
    return [sum(1 for peer in each if peer and peer.port == cluster.redis.port) for each in peers]


def busy_everywhere(app: Celery, children: int) -> bool:
    """Make the children open all they open; not surely each of them."""
    for _ in range(2):
        results([app.send_task("nap", (0.3,)) for _ in range(children)])
    done = app.send_task("add", (1, 2))
    assert done.get(timeout=30) == 3
    results([app.send_task("publish") for _ in range(20 * children)])
    results([app.send_task("wait_for", (done.id,)) for _ in range(20 * children)])
    return True


def test_a_pool_shrinks_to_what_fits_and_running_tasks_go_on(cluster: Cluster) -> None:
    app = cluster.app()
    worker = cluster.worker("worker", "-c", "6")
    wait_until(lambda: busy_everywhere(app, 6) and opened(cluster, worker) == [4] * 6, timeout=80)
    budget = connection_budget(app, 35)
    found = nodes(app)
    plan = plan_shrink(found, budget)
    assert plan == {NODE: 3}
    assert stats(app), "this process opens its own connections"
    before = cluster.clients()
    napping = [app.send_task("nap", (6,)) for _ in range(2)]
    wait_until(lambda: running(app) == 2)
    assert apply_shrink(app, plan) == [ok("6 → 3 processes", subject=NODE)]
    assert processes(app) == 3
    assert results(napping) == [6, 6]
    assert results([app.send_task("add", (n, n)) for n in range(50)]) == [2 * n for n in range(50)]
    wait_until(lambda: busy_everywhere(app, 3) and opened(cluster, worker) == [4] * 3, timeout=80)
    after = cluster.clients()
    assert before - after == 3 * 4, "three children went, and what each had opened"
    assert after <= (opened_by(found, budget, plan)[f"127.0.0.1:{cluster.redis.port}"] or 0) < 35
    assert plan_shrink(nodes(app), budget) == {}, "and that is enough"
    assert stats(app)[NODE]["prefetch_count"] == 3 * 4, "it takes no more tasks ahead than three processes do"


@pytest.mark.slow
def test_busy_processes_are_left_to_end_their_tasks(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "-c", "3")
    napping = [app.send_task("nap", (12,)) for _ in range(2)]
    wait_until(lambda: running(app) == 2)
    text = "3 → 2 processes so far, the others are busy: run it again"
    assert apply_shrink(app, {NODE: 1}, seconds=8) == [fail(text, fix="", subject=NODE)]
    assert apply_shrink(app, {NODE: 1}, seconds=20) == [ok("2 → 1 processes", subject=NODE)]
    assert results(napping) == [12, 12]
    assert results([app.send_task("add", (1, 1)) for _ in range(10)]) == [2] * 10


@pytest.mark.slow
def test_an_autoscaler_gets_a_smaller_range(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "--autoscale", "6,3")
    results([app.send_task("nap", (1,)) for _ in range(6)])
    assert processes(app) == 6
    plan = plan_shrink(nodes(app), connection_budget(app, 31))
    assert plan == {NODE: 2}
    assert apply_shrink(app, plan) == [ok("autoscales up to 2 now, instead of 6", subject=NODE)]
    scaler = stats(app)[NODE]["autoscaler"]
    assert (scaler["max"], scaler["min"], processes(app)) == (2, 2, 2)
    assert results([app.send_task("nap", (0.5,)) for _ in range(6)]) == [0.5] * 6
    assert processes(app) == 2, "and it does not grow again"


@pytest.mark.slow
def test_what_cannot_shrink_says_so(cluster: Cluster) -> None:
    app = cluster.app(broker_pool_limit=1)  # inspect would wait for ever with this one
    cluster.worker("worker", "-P", "solo")
    solo, gone = apply_shrink(app, {NODE: 1, "gone@host": 1}, seconds=2)
    assert solo == ok("1 → 1 processes", subject=NODE)
    assert (gone.verdict, gone.reason.partition(",")[0]) == ("fail", "did not answer")
    assert apply_shrink(app, {}) == []


@pytest.mark.slow
def test_a_worker_that_is_small_enough_by_now_is_left_alone(cluster: Cluster) -> None:
    app = cluster.app()
    cluster.worker("worker", "-c", "2")
    assert apply_shrink(app, {NODE: 3}) == [ok("2 → 2 processes", subject=NODE)]
    assert processes(app) == 2


@pytest.mark.slow
def test_workers_that_share_a_name_are_left_alone(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    app = cluster.app()
    large, small = cluster.worker("worker", "-c", "4"), cluster.worker("other", "-c", "1", "-n", NODE)
    before = children(large) + children(small)
    (outcome,) = apply_shrink(app, {NODE: 2})
    assert outcome.verdict == "fail"
    assert "shares its name with another worker" in outcome.reason
    assert shrink_pools(Scope(app, max_clients=31), ask=False) == 2
    assert "more than one worker is called worker@host" in capsys.readouterr().err
    assert children(large) + children(small) == before
    assert results([app.send_task("add", (n, n)) for n in range(8)]) == [2 * n for n in range(8)]


@pytest.mark.slow
def test_the_last_process_stays(cluster: Cluster) -> None:
    app = cluster.app(broker_url=f"redis://127.0.0.1:1/0;{cluster.redis.url}")  # the first one is away
    cluster.worker("worker", "-c", "2")
    assert apply_shrink(app, {NODE: 0}) == [ok("2 → 1 processes", subject=NODE)]
    assert results([app.send_task("add", (1, 1))]) == [2]


class TestTheCommand:
    """``shrink_pools``, as ``--apply-pool-shrink`` calls it; what a person does meanwhile happens at the question."""

    @pytest.fixture
    def app(self, cluster: Cluster) -> Celery:
        return cluster.app()

    @pytest.fixture
    def worker(self, cluster: Cluster) -> subprocess.Popen[bytes]:
        return cluster.worker("worker", "-c", "3", "-n", "colored\x1b[31m@host")

    @pytest.mark.slow
    def test_derives_its_code_from_what_came_of_it(
        self, app: Celery, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        def shrunk(max_clients: int, *, answer: bool = True, meanwhile: int | None = None) -> tuple[int, str, str]:
            def confirm(*_: Any, **__: Any) -> bool:
                if meanwhile is not None:
                    worker.send_signal(meanwhile)
                return answer

            monkeypatch.setattr("click.confirm", confirm)
            code = shrink_pools(Scope(app, seconds=3, max_clients=max_clients), ask=True)
            said = capsys.readouterr()
            assert "\x1b" not in said.out + said.err
            return code, said.out, said.err

        assert shrunk(99) == (0, ANY, "")
        assert shrunk(28, answer=False)[0] == 1
        code, out, err = shrunk(28, meanwhile=signal.SIGSTOP)
        assert code == 2
        assert "colored\\x1b[31m@host: did not answer" in out
        assert "Error: 1 of 1 pools did not shrink as planned" in err
        worker.send_signal(signal.SIGCONT)
        wait_until(lambda: app.control.inspect(timeout=1).stats(), what="the worker")
        code, out, err = shrunk(12)
        assert (code, err) == (1, "")
        assert "3 → 1 processes" in out
        assert "That is still too many" in out
        assert len(children(worker)) == 1
        code, out, _ = shrunk(12)
        assert code == 1
        assert out.startswith("No pool can shrink: connections at most: ")

    @pytest.mark.slow
    @pytest.mark.usefixtures("worker")
    @pytest.mark.parametrize("sig", [signal.SIGSTOP, signal.SIGKILL])
    def test_ends_when_the_redis_does(
        self, app: Celery, cluster: Cluster, sig: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        pid = cluster.redis.pid
        monkeypatch.setattr("click.confirm", lambda *_, **__: not psutil.Process(pid).send_signal(sig))
        began = time.monotonic()
        try:
            assert shrink_pools(Scope(app, seconds=8, max_clients=28), ask=True) == 2
        finally:
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - began < 40
        said = capsys.readouterr()
        assert "the broker could not be asked: " in said.out
        assert "Error: 1 of 1 pools did not shrink as planned" in said.err

    @pytest.mark.slow
    def test_says_who_is_not_counted(self, app: Celery, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
        cluster.worker("worker", "-c", "1", "--without-heartbeat")  # so that there is time to hear the other's
        cluster.conf = {"worker_enable_remote_control": False}
        cluster.worker("mute", "-c", "1")
        assert shrink_pools(Scope(app, seconds=8, max_clients=99), ask=False) == 1
        said = capsys.readouterr()
        assert said.out.startswith("Nothing to shrink: ")
        assert said.err == "Note: mute@host does not answer: what it opens is not counted.\n"

    def test_says_what_to_do_where_nobody_can_be_asked(
        self, app: Celery, cluster: Cluster, capsys: pytest.CaptureFixture[str]
    ) -> None:
        where = Scope(app, seconds=3, max_clients=40)
        assert shrink_pools(where, ask=False) == 2
        assert capsys.readouterr().err == "Error: no worker answers\n"
        with ExitStack() as stack:
            keeper = stack.enter_context(cluster.redis.client())
            keeper.config_set("maxclients", 9)
            with suppress(redis.ConnectionError):
                while stack.enter_context(cluster.redis.client()).ping():
                    pass
            assert shrink_pools(where, ask=False) == 2
            error = capsys.readouterr().err
            keeper.config_set("maxclients", 100)
        assert "Error: the broker could not be asked: it has no room for one more client" in error
        assert "Stop a worker" in error
        assert "CONFIG SET maxclients" in error
        cluster.redis.stop()
        assert shrink_pools(where, ask=False) == 2
        assert "Error: the broker could not be asked: connection refused" in capsys.readouterr().err
