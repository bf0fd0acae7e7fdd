"""A real worker, the real exporter and a real Prometheus: it has what the report says, and what our queries ask for."""

from __future__ import annotations

import json
import math
import re
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.monitoring_files import RULES, dashboard, queries, selectors, substituted
from support.prometheus_server import PrometheusServer, binary
from support.scene import Scene
from support.servers import APPS, BIN, RedisServer, Worker, run, running, stop, wait_until

from celery_argsize import get_size_summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

JOB = "celery-argsize"
#: What Grafana would put in. Both ranges hold all that these tests do.
VARIABLES = {"job": JOB, "task": ".*", "part": "(args|kwargs)", "__range": "10m", "__rate_interval": "10m"}
SIZES = "celery_task_args_size_bytes"


class World:
    """A worker, what it writes to, who serves that, and who scrapes it."""

    def __init__(self, scene: Scene, redis: RedisServer, prometheus: PrometheusServer, env: dict[str, str]) -> None:
        self.scene = scene
        self.redis = redis
        self.prometheus = prometheus
        self.env = env
        self.value = prometheus.value
        self.query = prometheus.query

    def argsize(self, *command: str) -> CompletedProcess[str]:
        return run(str(BIN / "celery"), "-A", "workload", "argsize", *command, env=self.env)

    def report(self) -> dict[str, Any]:
        done = self.argsize("report", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def send(self, count: int, name: str, *args: Any, **kwargs: Any) -> None:
        for _ in range(count):
            self.scene.send(name, *args, **kwargs)

    def runs(self, task: str) -> float:
        """How many runs of *task* Prometheus knows of."""
        return self.value(f'{SIZES}_count{{task="{task}",part="args"}}') or 0

    def wait_for(self, runs: dict[str, float]) -> None:
        wait_until(lambda: {task: self.runs(task) for task in runs} == runs, what=f"{runs} runs")

    def wait_for_data(self, expression: str, shown: str) -> None:
        """Wait until *expression* gives something, other than NaN; *shown* says where it is from."""

        def there() -> bool:
            return any(math.isfinite(sample.value) for sample in self.query(expression))

        wait_until(there, what=f"data for {shown}: {expression}")

    def work(self) -> None:
        """The same each time: 40 runs of task_2, four of which are large, and a few that Celery's limits cut."""
        before = dict.fromkeys(("task_2", "task_4", "task_5"), 1.0) | {"task_3": self.runs("task_3") + 1}
        for task in before:  # what a counter had when it was first seen is no increase
            self.send(1, task, "first")
        self.wait_for(before)
        self.send(35, "task_2", "x" * 50)
        self.send(4, "task_2", "x" * 3000)
        self.send(3, "task_3", "y" * 9000)
        self.send(2, "task_4", note={"a": {"b": {"c": {"d": [1]}}}})
        self.send(2, "task_5", "z" * 1_200_000)
        self.wait_for({"task_2": 40, "task_3": before["task_3"] + 3, "task_4": 3, "task_5": 3})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    binary("prometheus")  # or the rest is for nothing
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        redis = RedisServer(folder, "--appendonly", "yes")
        stack.callback(redis.stop)
        redis.start()
        scene = Scene(folder, redis.url, redis.url)
        env = scene.env({"flush_interval": 0.1})
        stack.enter_context(running(Worker(folder, env, "-c", "2", "-l", "WARNING")))
        for _ in range(30):  # from 30 runs on, there is a limit to recommend
            scene.send("task_3", "y" * 9000)
        wait_until(lambda: get_size_summary(redis_url=redis.url).total_tasks == 30, what="30 tasks")
        target = stack.enter_context(exporter(folder, env))
        prometheus = PrometheusServer(folder, target, job=JOB, rules=[RULES])
        stack.callback(prometheus.stop)
        world = World(scene, redis, prometheus.start(), env)
        wait_until(lambda: world.value("celery_task_args_up") == 1, what="the first scrape")
        world.work()
        yield world


@contextmanager
def exporter(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """The real command; gives where it serves, as host:port."""
    output = folder / "exporter.log"
    command = [str(BIN / "celery"), "-A", "workload", "argsize", "exporter", "--port", "0"]
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=APPS, env=env, stdout=log, stderr=log)

    def serving() -> re.Match[str] | None:
        assert process.poll() is None, output.read_text()
        return re.search(r"Serving metrics at http://(\S+)/metrics\n", output.read_text())

    try:
        yield wait_until(serving, what="the exporter")[1]
    finally:
        assert stop(process) == 0, output.read_text()


@pytest.mark.slow
def test_a_percentile_lies_in_the_bucket_that_it_should(world: World) -> None:
    def quantile(share: float) -> float | None:
        rates = f'sum by (le) (rate({SIZES}_bucket{{task="task_2",part="args"}}[10m]))'
        return world.value(f"histogram_quantile({share}, {rates})")

    # 35 of 39 have 54 bytes, and 4 have 3,004
    assert 0 < (quantile(0.5) or 0) <= 128
    assert 2048 < (quantile(0.95) or 0) <= 4096
    assert 2048 < (quantile(0.99) or 0) <= 4096


def test_the_figures_are_those_of_the_report(world: World) -> None:
    tasks = world.report()["tasks"]
    wanted: dict[str, dict[tuple[str, ...], float]] = {
        f"{SIZES}_count": {},
        f"{SIZES}_sum": {},
        "celery_task_args_max_size_bytes": {},
        "celery_task_args_large_total": {},
        "celery_task_args_truncated_total": {},
        "celery_task_args_unmeasurable_total": {},
    }
    for name, task in tasks.items():
        wanted["celery_task_args_large_total"][(name,)] = task["large"]
        wanted["celery_task_args_unmeasurable_total"][(name,)] = task["unmeasurable"]
        for part in ("args", "kwargs"):
            figures = task[part]
            wanted[f"{SIZES}_count"][name, part] = figures["count"]
            wanted[f"{SIZES}_sum"][name, part] = round(
                figures["mean"] * figures["count"]
            )  # ASCII: bytes are characters
            wanted["celery_task_args_max_size_bytes"][name, part] = figures["max_bytes"]
            for cause in ("size", "depth", "both"):
                wanted["celery_task_args_truncated_total"][name, part, cause] = figures["truncated_by"].get(cause, 0)
    assert tasks["task_3"]["args"]["truncated_by"]["size"] >= 3, "something was cut"
    assert tasks["task_4"]["kwargs"]["truncated_by"]["depth"] == 2
    for metric, values in wanted.items():
        found = {
            tuple(sample.labels[label] for label in ("task", "part", "cause") if label in sample.labels): sample.value
            for sample in world.query(metric)
        }
        assert found == values, metric


def test_an_exemplar_leads_to_a_task_that_was_sent(world: World) -> None:
    sent = {task_id: (task, size) for task, task_id, size, _ in world.scene.oracle()}
    found = wait_until(lambda: world.prometheus.exemplars(f"{SIZES}_bucket"), what="exemplars")
    assert {each["series"]["task"] for each in found} >= {"task_2", "task_3", "task_5"}
    for each in found:
        assert each["labels"].keys() == {"task_id"}
        assert sent[each["labels"]["task_id"]] == (each["series"]["task"], float(each["value"]))
        assert float(each["value"]) <= float(each["series"]["le"])


def test_every_query_of_the_dashboard_gives_data(world: World) -> None:
    for panel, expression in queries():
        world.wait_for_data(substituted(expression, **VARIABLES), panel)


def test_every_variable_of_the_dashboard_has_values(world: World) -> None:
    values = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            series, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            parameters = {"match[]": substituted(series, **VARIABLES)}
            values[variable["name"]] = world.prometheus.ask(f"label/{label}/values", **parameters)
    assert values == {"job": [JOB], "task": ["task_2", "task_3", "task_4", "task_5"]}


def test_every_series_in_the_rules_is_there_and_no_rule_fails(world: World) -> None:
    def rules() -> list[dict[str, Any]]:
        found = [rule for group in world.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return [] if any(rule["health"] == "unknown" for rule in found) else found

    found = wait_until(rules, what="each rule tried once")
    assert len(found) > 10
    assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []
    for series in set().union(*(selectors(rule["query"]) for rule in found)):
        world.wait_for_data(series, "a rule")


def test_what_is_wrong_here_fires_and_nothing_else_does(world: World) -> None:
    def firing() -> set[tuple[str, str]]:
        samples = world.query('ALERTS{alertstate="firing"}')
        return {(sample.labels["alertname"], sample.labels.get("task", "")) for sample in samples}

    wait_until(lambda: firing() == {("CeleryTaskArgsOver1MB", "task_5")}, what="the alert for 1 MB, alone")


@pytest.mark.slow
def test_a_reset_is_a_counter_reset(world: World) -> None:
    done = world.argsize("reset", "--yes")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: world.query(f"{SIZES}_count") == [], what="an empty scrape")
    world.work()
    series = f'{SIZES}_count{{task="task_2",part="args"}}'
    assert world.value(f"resets({series}[10m])") == 1
    # 39 after the first that was seen, 40 since the reset; Prometheus adds a little at the ends
    assert world.value(f"increase({series}[10m])") == pytest.approx(79, abs=20)
    assert [sample for sample in world.query(f"rate({SIZES}_bucket[10m])") if sample.value < 0] == []


@pytest.mark.slow
def test_with_redis_away_it_says_so_and_afterwards_goes_on(world: World) -> None:
    before = world.runs("task_2")
    world.redis.stop()
    try:
        wait_until(
            lambda: world.query("celery_task_args_up == 0 and on () up == 1"), what="up 0, in a scrape that went well"
        )
        names = {sample.labels["__name__"] for sample in world.query('{__name__=~"celery_.*"}')}
        assert names == {"celery_task_args_up"}, "nothing old is passed off as fresh"
    finally:
        world.redis.start()
    wait_until(lambda: world.value("celery_task_args_up") == 1, what="up 1")
    wait_until(lambda: world.runs("task_2") == before, what="the same figures")
    world.send(1, "task_2", "again")
    world.wait_for({"task_2": before + 1})
