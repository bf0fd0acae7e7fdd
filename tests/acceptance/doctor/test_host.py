"""What the doctor sees of this machine: real processes and files, and control groups in a tree of files like /sys's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from celery import Celery
from support.servers import BIN, ROOT, Worker, run, stop, wait_until

from celery_argsize.doctor.checks import Outcome
from celery_argsize.doctor.examine import diagnose
from celery_argsize.doctor.facts import CeleryProcess, CGroup, Facts, HostFacts, LookResult, Scope
from celery_argsize.doctor.judge.host import CHECKS
from celery_argsize.doctor.look.host import look_at_host, process_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.scene import Scene

BY_ID = {check.id: check for check in CHECKS}
MB = 1 << 20
GB = 1 << 30
#: A machine on which all is well.
WELL = HostFacts(
    hostname="h",
    cpus=4,
    memory_total=4 * GB,
    memory_available=2 * GB,
    oom_kills_since_boot=0,
)


def judged(name: str, host: HostFacts, app: Celery | None = None) -> list[Outcome]:
    nothing: LookResult[Any] = LookResult(why_not="not looked at")
    outcome = BY_ID[name].judge(Facts(Scope(app), nothing, nothing, nothing, LookResult(host)))
    return [outcome] if isinstance(outcome, Outcome) else [*outcome]


def one(name: str, host: HostFacts) -> Outcome:
    (outcome,) = judged(name, host)
    return outcome


def look(root: Path | None = None) -> HostFacts:
    return look_at_host(Scope(None), *([root] if root else []))


def tree(root: Path, files: Mapping[str, str]) -> HostFacts:
    """What is seen on a machine with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return look(root)


# --- processes


@pytest.fixture
def family(scene: Scene, tmp_path: Path) -> Iterator[tuple[Worker, subprocess.Popen[bytes]]]:
    """A worker with two children and a Beat within, and a Beat of its own."""
    schedule = str(tmp_path / "schedule")
    worker = Worker(tmp_path, scene.env(), "-c", "2", "-B", "-s", schedule + "1", "-l", "info")
    command = [str(BIN / "celery"), "--app=workload", "-q", "beat", "-s", schedule + "2", "--pidfile="]
    beat = subprocess.Popen(
        command, cwd=ROOT / "tests" / "support" / "apps", env=scene.env(), stderr=subprocess.DEVNULL
    )
    try:
        yield worker.wait_ready(), beat
    finally:
        stop(beat)
        worker.stop()


@pytest.mark.slow
def test_real_workers_their_children_and_beats_are_seen(family: tuple[Worker, subprocess.Popen[bytes]]) -> None:
    worker, beat = family
    main = worker.process.pid

    def seen() -> dict[int, CeleryProcess]:
        found = {one.pid: one for one in look().processes if {one.pid, one.ppid} & {main, beat.pid}}
        return found if sum(one.kind == "child" for one in found.values()) == 3 else {}  # two and a Beat

    found = wait_until(seen, what="three processes of the worker")

    assert (found[main].kind, found[main].beat, found[main].app) == ("worker", True, "workload")
    assert (found[beat.pid].kind, found[beat.pid].beat, found[beat.pid].app) == ("beat", True, "workload")
    assert all(one.ppid == main and not one.beat for one in found.values() if one.kind == "child")
    assert all(one.rss > 10 * MB and time.time() - 300 < one.created <= time.time() + 1 for one in found.values())


@pytest.mark.parametrize(
    ("command", "kind", "beat", "app"),
    [
        ("python -m celery -A proj worker -l info", "worker", False, "proj"),
        ("/bin/python3.11 -u -O /bin/celery --app p.a:app -b redis://u:p@h worker -EB", "worker", True, "p.a:app"),
        ("/venv/bin/celery -Aproj worker --beat -n beat@h", "worker", True, "proj"),
        ("celery -A proj worker -n Big -Q B --pool=solo", "worker", False, "proj"),
        ("celery worker", "worker", False, ""),
        ("python /venv/lib/celery/__main__.py --app=proj --workdir /srv beat -l info", "beat", True, "proj"),
        ("celery -A proj beat -S django_celery_beat.schedulers:DatabaseScheduler", "beat", True, "proj"),
        ("[celeryd: celery@h:MainProcess] -active- (-A proj worker -B -l info)", "worker", True, "proj"),
        ("[celery beat] -A proj beat -l info", "beat", True, "proj"),
    ],
)  # fmt: skip
def test_a_command_line_tells_what_runs(command: str, kind: str, beat: bool, app: str) -> None:  # noqa: FBT001
    found = process_of(command.split(" "))

    assert found is not None
    assert (found.kind, found.beat, found.app) == (kind, beat, app)


@pytest.mark.parametrize(
    "command",
    [
        "celery -A proj flower",
        "celery -A proj argsize doctor",
        "celery -A worker inspect ping",
        "python manage.py worker",
        "python -c celery worker",
        "python /venv/bin/watchmedo auto-restart -- celery -A proj worker",
        "sh -c celery -A proj worker",
        "vim celery worker",
        "celery",
        "celery -A",
        "[celeryd: celery@h:ForkPoolWorker-1]",
        "",
    ],
)
def test_other_commands_are_none_of_celery(command: str) -> None:
    assert process_of(command.split(" ")) is None


def test_nothing_but_kind_and_app_is_kept_of_a_command_line() -> None:
    found = process_of(["celery", "-A", "proj", "-b", "redis://:hunter2@h", "worker", "-n", "hunter2@h"])

    assert "hunter2" not in repr(found)


def test_a_title_that_setproctitle_left_is_understood_as_psutil_gives_it() -> None:
    title = "[celeryd: celery@h:MainProcess] -active- (-A proj worker -B)"
    process = subprocess.Popen([title, "-"], executable=sys.executable, stdin=subprocess.PIPE)
    try:
        (found,) = wait_until(lambda: [one for one in look().processes if one.pid == process.pid], what="the process")
        assert (found.kind, found.beat, found.app) == ("worker", True, "proj")
    finally:
        process.communicate(b"", timeout=30)


# --- memory and control groups


def test_memory_that_a_process_takes_is_seen() -> None:
    code = "x = bytearray(b'x') * (400 << 20); print(flush=True); input()"

    def taken() -> bool:
        before = look()
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            after = look()
            process.communicate(b"\n", timeout=30)

        assert before.memory_available
        assert after.memory_available
        seen = [before.memory_available - after.memory_available]
        if before.cgroup and before.cgroup.used and after.cgroup and after.cgroup.used:
            seen.append(after.cgroup.used - before.cgroup.used)
        return min(seen) > 200 * MB

    wait_until(taken, what="memory that is taken while other tests free no more than that")


V2 = {
    "proc/self/cgroup": "0::/kubepods/pod1/app",
    "sys/fs/cgroup/kubepods/pod1/app/memory.max": str(GB),
    "sys/fs/cgroup/kubepods/pod1/app/memory.current": str(500 * MB),
    "sys/fs/cgroup/kubepods/pod1/app/memory.stat": f"anon {150 * MB}\ninactive_file {50 * MB}",
    "sys/fs/cgroup/kubepods/pod1/app/memory.events": "low 0\noom 3\noom_kill 2",
    "sys/fs/cgroup/kubepods/pod1/app/cpu.max": "200000 100000",
    "sys/fs/cgroup/kubepods/pod1/memory.max": str(512 * MB),
    "sys/fs/cgroup/kubepods/pod1/memory.current": str(560 * MB),
    "sys/fs/cgroup/kubepods/pod1/memory.stat": f"inactive_file {60 * MB}",
    "sys/fs/cgroup/kubepods/pod1/cpu.max": "90000 100000",
    "proc/vmstat": "nr_free_pages 3\noom_kill 7",
}


def test_a_control_group_of_version_2_takes_the_tightest_limit_around_it(tmp_path: Path) -> None:
    host = tree(tmp_path, V2)

    group = CGroup(path="/kubepods/pod1/app", limit=512 * MB, used=500 * MB, oom_kills=2)
    assert host.cgroup == group
    assert (host.cpus, host.oom_kills_since_boot) == (1, 7)


def test_a_control_group_without_a_limit_has_none(tmp_path: Path) -> None:
    unlimited = dict.fromkeys((name for name in V2 if name.endswith("memory.max")), "max")
    group = tree(tmp_path, {**V2, **unlimited}).cgroup

    assert group
    assert group.limit is None


@pytest.mark.parametrize("groups", ["", "0::/../outside", "0::/"])
def test_no_control_group_is_no_fault(tmp_path: Path, groups: str) -> None:
    host = tree(tmp_path, {"proc/self/cgroup": groups})

    assert host.cgroup is None
    assert host.cpus == len(os.sched_getaffinity(0))
    assert judged("host.cgroup", host) == []


@pytest.mark.slow
def test_the_control_group_of_a_worker_elsewhere_on_the_machine_is_read_too(tmp_path: Path, scene: Scene) -> None:
    worker = Worker(tmp_path, scene.env(), "-c", "1").wait_ready()
    unit = "sys/fs/cgroup/system.slice/celery.service/"
    try:
        files = {
            f"proc/{worker.process.pid}/cgroup": "0::/system.slice/celery.service",
            f"{unit}memory.max": str(512 * MB),
            f"{unit}memory.current": str(500 * MB),
            f"{unit}memory.events": "oom_kill 1",
        }
        host = tree(tmp_path, files)
    finally:
        worker.stop()

    limit, kills = judged("host.cgroup", host)
    assert (limit.verdict, limit.subject) == ("fail", "/system.slice/celery.service")
    assert (kills.verdict, kills.figure) == ("fail", "1 killed")


@pytest.mark.slow
def test_a_worker_in_our_own_control_group_is_counted_there(tmp_path: Path, scene: Scene) -> None:
    worker = Worker(tmp_path, scene.env(), "-c", "1").wait_ready()
    try:
        host = tree(tmp_path, {**V2, f"proc/{worker.process.pid}/cgroup": V2["proc/self/cgroup"]})
    finally:
        worker.stop()

    assert host.cgroup
    assert (host.cgroup.workers, host.worker_cgroups) == (1, ())


# --- verdicts


def test_a_machine_on_which_all_is_well_gets_no_alarm() -> None:
    big = replace(WELL, memory_total=512 * GB, memory_available=20 * GB)  # 96 %, and 20 GB are a lot
    small = replace(WELL, memory_total=512 * MB, memory_available=150 * MB)
    contained = replace(WELL, cgroup=CGroup(path="/", limit=512 * MB, used=350 * MB, oom_kills=0))

    for host in (WELL, big, small, contained):
        assert {outcome.verdict for name in BY_ID for outcome in judged(name, host)} == {"ok"}


def test_this_very_machine_is_looked_at_without_a_crash() -> None:
    host = look()

    assert host.memory_total == psutil.virtual_memory().total
    unclear = {"unknown"} if host.oom_kills_since_boot else set()
    assert {outcome.verdict for outcome in judged("host.memory", host)} <= {"ok", "warn", "fail"}
    assert {outcome.verdict for outcome in judged("host.cgroup", host)} <= {"ok", "warn", "fail"} | unclear


@pytest.mark.parametrize(("left", "verdict"), [(1000, "ok"), (700, "warn"), (100, "fail")])
def test_little_memory_left_is_said(left: int, verdict: str) -> None:
    group = CGroup(path="/", limit=4 * GB, used=4 * GB - left * MB)

    assert one("host.memory", replace(WELL, memory_available=left * MB)).verdict == verdict
    assert one("host.cgroup", replace(WELL, memory_total=64 * GB, cgroup=group)).verdict == verdict


def test_kills_are_told_by_whose_they_are() -> None:
    group = CGroup(path="/", oom_kills=3)

    assert one("host.cgroup", replace(WELL, cgroup=replace(group, workers=2))).verdict == "fail"
    assert one("host.cgroup", replace(WELL, cgroup=group)).verdict == "warn"
    nobodys = one("host.cgroup", replace(WELL, cgroup=replace(group, oom_kills=0), oom_kills_since_boot=5))
    assert (nobodys.verdict, nobodys.figure) == ("ok", "5 killed elsewhere")
    unclear = one("host.cgroup", replace(WELL, oom_kills_since_boot=5))
    assert (unclear.verdict, unclear.figure) == ("unknown", "5 killed on this machine")
    assert unclear.fix == "dmesg -T | grep -i 'killed process'"  # no limits for workers that may not be the cause


def test_without_psutil_the_rest_is_still_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)  # its import fails

    host = tree(tmp_path, V2)

    assert host.psutil_missing
    verdicts = {name: judged(name, host)[0] for name in BY_ID}
    assert {name for name, outcome in verdicts.items() if outcome.verdict == "unknown"} == {"host.memory"}
    assert verdicts["host.memory"].fix == "pip install 'celery-argsize[cli]'"
    assert verdicts["host.cgroup"].verdict == "fail"


@pytest.mark.slow
def test_the_command_shows_this_machine(scene: Scene) -> None:
    env = {**scene.env(), "PYTHONPATH": str(ROOT / "tests" / "support" / "apps")}
    told = run(str(BIN / "celery"), "-A", "workload", "argsize", "doctor", "--json", env=env)
    checks = {one["id"]: one for one in json.loads(told.stdout)["checks"]}

    assert "GB" in checks["host.memory"]["figure"]
    assert set(BY_ID) - {"host.cgroup"} <= set(checks)


def test_diagnose_has_the_groups_settings_and_host(scene: Scene) -> None:
    found = diagnose(Celery("x", broker=scene.broker, backend=scene.broker, set_as_current=False), seconds=5)

    ids = {one.check.id for one in found.results}
    assert {"settings.names", "host.memory"} <= ids
