"""Memory, keys and log lines stay bounded, whatever is sent. benchmarks/bounds.py does it at full scale."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from support.servers import BIN, ROOT, Worker, run, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from support.scene import Scene
    from support.servers import RedisServer

#: MB more than before: twice what docs/reliability.md has for a hundred times as many runs.
MAIN, CHILD, REDIS = 20, 10, 4

NAMES = {
    "of 10 KB": "x" * 10_240,
    "of 10 KB in Japanese": "音" * 3413,
    "of many lines": "music\n[CELERY MONITOR] Task: forged\r\n.scan",
    "with control characters": "music\x1b[31m\x07\x08.scan\x7f\x85\u2028\u202e",
    "with a lone surrogate": "music\ud800.scan",
}


def argsize(*words: str, env: dict[str, str]) -> str:
    done = run(str(BIN / "celery"), "-A", "named", "argsize", *words, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_names_that_nobody_should_give_are_one_printable_line_each_and_found_again(
    scene: Scene, redis_server: RedisServer
) -> None:
    env = {**scene.env(), "TEST_NAMES": json.dumps([*NAMES.values()])}
    producer = Celery("named", broker=scene.broker, backend=scene.backend, set_as_current=False)

    def summary() -> Any:
        return celery_argsize.get_size_summary(redis_url=scene.broker, app_name="named")

    with running(Worker(scene.folder, env, "-c", "1", "-l", "WARNING", module="named")) as worker:
        for name in NAMES.values():
            producer.send_task(name, ["x" * 2000], ignore_result=True)
        wait_until(lambda: summary().total_tasks == len(NAMES), what="all tasks")
        report, as_json = (argsize("report", *words, env=env) for words in ((), ("--json",)))
        with redis_server.client() as client:
            ours = [*client.scan_iter("celery-argsize:*")]
        for what in ("of many lines", "with control characters"):
            assert "were reset" in argsize("reset", "--yes", "--task", NAMES[what], env=env)
        for what in ("of 10 KB in Japanese", "with a lone surrogate"):
            assert celery_argsize.reset_metrics(producer, task=NAMES[what]).forgotten == 1
        assert [task.name[:3] for task in summary().tasks] == ["xxx"]
        log = worker.stop()
    lines = [line for line in log.splitlines() if "[CELERY MONITOR] Task: " in line]
    assert len(lines) == len(NAMES)
    for text in (*lines, log, report):
        assert not [
            char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char != "\n"
        ]
    kept = [*json.loads(as_json)["tasks"]]
    assert len(kept) == len(NAMES)
    for name in kept:
        assert len(name.encode()) <= 160
        assert sum(line.startswith(f"  {name} ") for line in report.splitlines()) == 1
    assert max(map(len, ours)) < 250


def bench(*words: str, scale: str) -> dict[str, Any]:
    """Results of benchmarks/bounds.py."""
    env = {**os.environ, "SCALE": scale}
    done = run(sys.executable, str(ROOT / "benchmarks" / "bounds.py"), "--json", *words, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(autouse=True)
def _linux() -> None:
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")


def test_memory_ends_where_the_names_and_hosts_that_are_kept_do() -> None:
    found = bench("distinct", "names of 10 KB", scale="0.01")
    assert {*found} == {"distinct task names", "distinct sending hosts", "names of 10 KB"}
    for load in found.values():
        assert load["runs"] == 14_000
        assert load["main"] < MAIN
        assert load["child"] < CHILD
        assert load["redis"] < REDIS
        assert load["longest"] <= 160
        assert load["keys"] < 1020
    for name in ("distinct task names", "names of 10 KB"):
        assert found[name]["names"] == 1000
        assert found[name]["other"] >= 9000


@pytest.mark.slow
def test_big_arguments_take_next_to_no_memory_whatever_their_repr() -> None:
    found = bench("records", "one text", scale="0.1")
    assert len(found) == 3
    for shape in found.values():
        assert shape["right"]
        for what in ("whole", "1024", "131072"):
            assert shape[what][1] < CHILD, what
