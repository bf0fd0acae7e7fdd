"""``argsize doctor`` as a person uses it: the command and the script, exit codes, JSON, and that it only looks."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.scene import Scene
from support.servers import BIN, ROOT, RedisServer, Worker, free_port, run, running, wait_until, wait_until_steady

from celery_argsize import get_size_summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

SCRIPT = str(ROOT / "scripts" / "celery_heartbeat_diagnostic.py")


@pytest.fixture
def saving_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that saves to its disk, as one with queues should."""
    folder = tmp_path / "saving"
    folder.mkdir()
    server = RedisServer(folder, "--appendonly", "yes")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def saved(tmp_path: Path, saving_redis: RedisServer) -> Scene:
    return Scene(tmp_path, saving_redis.url, saving_redis.url)


def doctor(env: dict[str, str], *words: str, app: str | None = "workload") -> CompletedProcess[str]:
    return run(str(BIN / "celery"), *(["-A", app] if app else []), "argsize", "doctor", *words, env=env)


def not_well(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (one["id"], one["verdict"], one["figure"], one["reason"])
        for one in found["checks"]
        if one["verdict"] in {"warn", "fail"}
    ]


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["verdict"] for one in found["checks"]}


def kept(redis: RedisServer) -> dict[bytes, bytes | None]:
    """Every key, with all that it holds, but for the one where kombu 5.7 notes until when answers are waited for."""
    with redis.client() as client:
        return {key: client.dump(key) for key in client.keys("*") if key != b"_kombu.binding_deadlines"}


@pytest.mark.smoke
def test_a_sane_set_up_gives_no_alarm_and_is_only_looked_at(saved: Scene, saving_redis: RedisServer) -> None:
    env = saved.env()
    worker = Worker(saved.folder, env, "--concurrency", "2")
    with running(worker):
        for number in range(40):
            saved.send("task_1", number)
        wait_until(lambda: get_size_summary(redis_url=saved.broker).total_tasks == 40)
        # A note about the last run may come with the next flush, a second later.
        before = wait_until_steady(lambda: kept(saving_redis), seconds=2.5, what="a Redis")
        done = doctor(env, "--json")
        found = json.loads(done.stdout)
        assert not_well(found) == []
        assert found["health"] in {"EXCELLENT", "GOOD"}
        assert done.returncode == found["exit_code"]
        assert done.returncode in {0, 3}
        wait_until(lambda: kept(saving_redis) == before, what="all as before")
        assert worker.process.poll() is None
        text = doctor(env)
        assert text.stdout.startswith("SYSTEM HEALTH of workload: " + found["health"])
        assert text.stderr == ""
        script = run(sys.executable, SCRIPT, "-A", "workload", "--json", env=env)
        assert verdicts(json.loads(script.stdout)) == verdicts(found)
        assert script.returncode == done.returncode


def test_without_an_app_it_looks_at_the_redis_and_at_this_machine(redis_url: str) -> None:
    done = doctor({**os.environ}, "--json", "--redis-url", redis_url, app=None)
    found = json.loads(done.stdout)
    known = {name for name, verdict in verdicts(found).items() if verdict != "unknown"}
    assert {"redis.reachable", "redis.clients", "monitor.limits"} <= known
    assert any(name.startswith("host.") for name in known)
    assert verdicts(found)["workers.answering"] == "unknown"


def test_the_script_finds_the_redis_as_the_other_script_does(redis_url: str) -> None:
    done = run(sys.executable, SCRIPT, "--json", env={**os.environ, "CELERY_BROKER_URL": redis_url})
    found = json.loads(done.stdout)
    assert [one["verdict"] for one in found["checks"] if one["id"] == "redis.reachable"] == ["ok"]


def test_a_redis_that_is_away_fails_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    scene = Scene(tmp_path, f"redis://:sesame@127.0.0.1:{free_port()}/0", None)
    done = doctor(scene.env())
    lines = done.stdout.splitlines()
    assert lines[0] == "SYSTEM HEALTH of workload: CRITICAL (0 of 100)"
    assert any(line.startswith("FAIL redis.reachable") for line in lines)
    assert any(line.startswith("FAIL broker.reachable") for line in lines)
    assert any(line.startswith("ok host.") for line in lines)
    assert any(line.startswith("ok settings.") for line in lines)
    assert done.returncode == 2
    assert "sesame" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_redis_that_hangs_costs_no_more_than_the_time_it_is_given(tmp_path: Path, saving_redis: RedisServer) -> None:
    scene = Scene(tmp_path, saving_redis.url, saving_redis.url)
    os.kill(saving_redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = doctor(scene.env(), "--json", "--timeout", "8")
        took = time.monotonic() - began
    finally:
        os.kill(saving_redis.pid, signal.SIGCONT)
    found = json.loads(done.stdout)
    assert verdicts(found)["broker.reachable"] == "fail"
    assert done.returncode == 2
    assert took < 30  # it would hang for ever; a slow machine takes seconds to import


def test_an_app_whose_configuration_is_missing_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad_app.py").write_text(
        "from celery import Celery\napp = Celery()\napp.config_from_object('nowhere')\n"
    )
    done = doctor({**os.environ, "PYTHONPATH": str(tmp_path)}, "--json", app="bad_app")
    assert verdicts(json.loads(done.stdout))["settings.imports"] == "fail"
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.parametrize("words", [["--timeout", "0"], ["--timeout", "x"], ["--nonsense"]])
def test_wrong_usage_ends_with_2_and_says_so_on_stderr(words: list[str]) -> None:
    done = doctor({**os.environ}, *words, app=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error" in done.stderr


def test_colors_are_for_terminals_only(tmp_path: Path) -> None:
    scene = Scene(tmp_path, f"redis://127.0.0.1:{free_port()}/0", None)
    assert "\x1b" not in doctor(scene.env()).stdout


def pool_size(scene: Scene) -> int:
    answers: Any = scene.producer.control.inspect(timeout=1).stats()
    (stats,) = answers.values()
    return len(stats["pool"]["processes"])


@pytest.mark.slow
@pytest.mark.smoke
def test_pools_shrink_when_a_person_says_yes_and_only_then(scene: Scene) -> None:
    env = scene.env()
    words = [str(BIN / "celery"), "-A", "workload", "argsize", "doctor", "--apply-pool-shrink", "--max-clients", "32"]
    with running(Worker(scene.folder, env, "--concurrency", "6")):
        refused = run(*words, env=env, text_in="n\n")
        assert "tested@host: 6 → " in refused.stdout
        assert "Shrink these pools now?" in refused.stderr
        assert refused.returncode == 1
        assert pool_size(scene) == 6
        silent = run(*words, env=env)
        assert silent.returncode == 1  # nobody to answer is no yes
        assert pool_size(scene) == 6
        done = run(*words, "--yes", env=env)
        assert done.returncode == 0
        assert pool_size(scene) < 6
        assert f"6 → {pool_size(scene)} processes" in done.stdout.splitlines()[-2]
        again = run(*words, "--yes", env=env)
        assert again.stdout.startswith("Nothing to shrink: ")


@pytest.mark.slow
def test_where_nobody_knows_what_the_broker_takes_it_says_what_to_type(amqp_scene: Scene) -> None:
    env = amqp_scene.env()
    with running(Worker(amqp_scene.folder, env, "--concurrency", "2")):
        done = run(str(BIN / "celery"), "-A", "workload", "argsize", "doctor", "--apply-pool-shrink", env=env)
    assert done.returncode == 2
    assert "--max-clients" in done.stderr


@pytest.mark.parametrize(
    ("words", "app"),
    [(["--apply-pool-shrink"], None), (["--apply-pool-shrink", "--json"], "workload"), (["--yes"], "workload")],
)
def test_shrinking_is_only_for_who_means_it(scene: Scene, words: list[str], app: str | None) -> None:
    done = doctor(scene.env(), *words, app=app)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
