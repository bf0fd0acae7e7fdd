"""The check script and ``celery argsize`` as people run them: as processes, by their output and exit codes."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from support.servers import BIN, ROOT, free_port, run

import celery_argsize
from celery_argsize import Measurement, Part, Size

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from support.scene import Scene

SCRIPT = str(ROOT / "scripts" / "check_celery_metrics.py")

#: The worked example of the size guide, to the character.
GUIDE = """\
=== CELERY SIZE METRICS ===
Tasks analyzed: 15
Max args size: 45,678 characters
Max kwargs size: 12,345 characters
Mean args size: 23,456 characters
Mean kwargs size: 5,678 characters
Truncated tasks: 2
Largest task: extract_metadata_batch (args)
Recommended limit: 54,813 characters
Recommended tier: 128KB (131072)
"""


def script(*options: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return run(sys.executable, SCRIPT, *options, env=env)


def add(url: str, name: str, args: int, kwargs: int, *, truncated: bool = False, task_id: str = "some-id") -> None:
    parts = Part(Size(args, args), "size" if truncated else "intact"), Part(Size(kwargs, kwargs))
    celery_argsize.update_size_metrics(Measurement(name, task_id, *parts, time.time()), redis_url=url)


@pytest.fixture
def guide(redis_url: str) -> str:
    """A Redis that holds the guide's 15 tasks."""
    add(redis_url, "extract_metadata_batch", 45_678, 12_345, truncated=True, task_id="the-largest")
    add(redis_url, "extract_metadata_batch", 45_678, 9_825, truncated=True)
    for _ in range(12):
        add(redis_url, "scan", 18_000, 4_500)
    add(redis_url, "insert", 23_456 * 15 - 2 * 45_678 - 12 * 18_000, 5_678 * 15 - 12_345 - 9_825 - 12 * 4_500)
    return redis_url


@pytest.mark.smoke
def test_the_guides_example(guide: str) -> None:
    done = script("--redis-url", guide)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(GUIDE)
    assert done.stdout.rstrip().endswith("app.amqp.argsrepr_maxsize = 131072\n    app.amqp.kwargsrepr_maxsize = 131072")
    positions = [done.stdout.index(f"\n  {name} ") for name in ("extract_metadata_batch", "insert", "scan")]
    assert positions == sorted(positions), "largest first"
    assert done.stderr == ""


@pytest.mark.smoke
def test_json(guide: str) -> None:
    done = script("--redis-url", guide, "--json")
    data = json.loads(done.stdout)
    tasks = data.pop("tasks")
    assert data.pop("advice")["verdict"] == "too_few"
    assert data.pop("since") <= data.pop("updated")
    assert data == {
        "schema": 1,
        "apps": ["celery"],
        "total_tasks": 15,
        "max_args_size": 45_678,
        "max_kwargs_size": 12_345,
        "avg_args_size": 23_456,
        "avg_kwargs_size": 5_678,
        "truncated_tasks": 2,
        "truncated_by": {"size": 2, "depth": 0, "both": 0},
        "large_tasks": 15,
        "unmeasurable_tasks": 0,
        "errors": 0,
        "other_runs": 0,
        "largest_task": {
            "name": "extract_metadata_batch",
            "part": "args",
            "size": 45_678,
            "task_id": "the-largest",
        },
        "recommended_limit": 54_813,
        "recommended_tier": 131_072,
    }
    scan = tasks["scan"]
    assert scan["count"] == 12
    assert scan["args"]["histogram"] == {"32768": 12}
    assert {"max", "mean", "p50", "p95", "p99", "truncated", "histogram"} <= set(scan["args"]) & set(scan["kwargs"])
    assert (scan["args"]["max"], scan["args"]["mean"], scan["args"]["p99"]) == (18_000, 18_000, 18_000)


def test_nothing_collected_yet(redis_url: str) -> None:
    done = script("--redis-url", redis_url)
    assert done.returncode == 1
    assert "celery_argsize.install(app)" in done.stdout
    done = script("--redis-url", redis_url, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["total_tasks"] == 0
    assert "celery_argsize.install(app)" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["--redis-url", "http://user:sesame@localhost/0"], "redis_url = http://localhost/0 cannot work"),
        (["--redis-url", "redis://:sesame@localhost:notaport/0"], "cannot work"),
    ],
)
def test_bad_usage(options: list[str], said: str) -> None:
    done = script(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "sesame" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.smoke
def test_redis_unreachable_says_where_and_never_the_password() -> None:
    port = free_port()
    done = script("--redis-url", f"redis://user:sesame@127.0.0.1:{port}/3")
    assert done.returncode == 3
    assert f"redis://127.0.0.1:{port}/3" in done.stderr
    assert "sesame" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_script_finds_the_redis_that_celery_is_told_of(guide: str, scene: Scene) -> None:
    env = {**scene.env(), "CELERY_BROKER_URL": guide, "CELERY_RESULT_BACKEND": "rpc://"}
    assert script(env=env).stdout.startswith(GUIDE)


@pytest.mark.smoke
@pytest.mark.parametrize("way", [["argsize", "report", "--redis-url"], ["-A", "workload", "argsize", "report"]])
def test_the_command_shows_the_same(guide: str, scene: Scene, way: list[str]) -> None:
    options = ["--app-name", "celery"] + (["--redis-url", guide] if way[-1] != "--redis-url" else [])
    done = run(str(BIN / "celery"), *way, *([guide] if way[-1] == "--redis-url" else []), *options, env=scene.env())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(GUIDE)


def test_the_command_takes_the_apps_own_settings(redis_url: str, scene: Scene) -> None:
    app = Celery("workload", broker=redis_url)
    celery_argsize.install(app)
    try:
        parts = Part(Size(10, 10)), Part(Size(0, 0))
        celery_argsize.update_size_metrics(Measurement("of_workload", "id", *parts, time.time()), app)
    finally:
        celery_argsize.uninstall(app)
    add(redis_url, "of_another_app", 10, 0)
    done = run(str(BIN / "celery"), "-A", "workload", "argsize", "report", "--json", env=scene.env())
    assert list(json.loads(done.stdout)["tasks"]) == ["of_workload"]
    done = script("--redis-url", redis_url)
    assert "Apps: celery, workload" in done.stdout
    assert "of_workload" in done.stdout
    assert "of_another_app" in done.stdout


def test_over_two_megabytes_no_tier_covers_it(redis_url: str) -> None:
    add(redis_url, "huge", 2 * 1024 * 1024 + 1, 0)
    done = script("--redis-url", redis_url)
    assert "Recommended tier: none covers it" in done.stdout
    assert "Recommended limit: 2,516,583 characters" in done.stdout
    assert "argsrepr_maxsize" not in done.stdout
    assert json.loads(script("--redis-url", redis_url, "--json").stdout)["recommended_tier"] is None


def test_when_nothing_could_be_measured_nothing_is_recommended(redis_url: str) -> None:
    unmeasurable = Part(None)
    seen = Measurement("sockets", "id", unmeasurable, unmeasurable, time.time())
    celery_argsize.update_size_metrics(seen, redis_url=redis_url)
    done = script("--redis-url", redis_url)
    assert done.returncode == 0
    assert "Unmeasurable tasks: 1" in done.stdout
    assert "Recommended limit: none, as nothing could be measured" in done.stdout
    assert "->" not in done.stdout
    assert "argsrepr_maxsize" not in done.stdout
