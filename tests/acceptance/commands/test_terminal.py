"""diff and check as people and their scripts run them; help and completion of all commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.figures import Figures
from support.servers import BIN, ROOT, RedisServer, free_port, run
from support.terminal import terminal

from celery_argsize import Part, Size
from celery_argsize.commands.group import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from support.scene import Scene

CELERY = str(BIN / "celery")
TERMINAL_DOCS = (ROOT / "docs" / "terminal.md").read_text()


@pytest.fixture
def figures(redis_url: str) -> Iterator[Figures]:
    kept = Figures(redis_url)
    yield kept
    kept.store.close()


def argsize(*options: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return run(CELERY, "argsize", *options, env=env)


@pytest.fixture
def before(figures: Figures, tmp_path: Path) -> Path:
    """A report, and then a reset."""
    figures.add("music.scan", 100, 100)
    figures.add("insert", 7, kwargs=3)
    figures.add("drop", 5)
    figures.add("cut", 2000, cause="depth")
    file = tmp_path / "before.json"
    file.write_text(argsize("report", "--json", "--redis-url", figures.url).stdout)
    figures.store.reset()
    return file


# diff


def test_diff_shows_what_a_change_did_to_each_task(figures: Figures, before: Path) -> None:
    figures.add("music.scan", 120, cause="size")
    figures.add("insert", 7, kwargs=3)
    figures.add("fresh", 9)
    figures.add("cut", 1500)
    done = argsize("diff", str(before), "--redis-url", figures.url)
    assert done.returncode == 0, done.stderr
    assert (
        "Tasks: 1 larger, 1 new, 1 smaller, 1 gone, 1 newly truncated, 1 no longer truncated, 1 unchanged."
        in done.stdout
    )
    rows = {line.split()[0]: " ".join(line.split()) for line in done.stdout.splitlines() if " args " in line}
    assert rows == {
        "music.scan": "music.scan args larger +20.0 %, newly truncated 100 -> 120 100 -> 120 100 -> 120 2 -> 1 0 -> 1",
        "fresh": "fresh args new 9 9 9 1 0",
        "cut": "cut args smaller -25.0 %, no longer truncated 2,000 -> 1,500 2,000 -> 1,500 2,000 -> 1,500 1 1 -> 0",
        "drop": "drop args gone 5 5 5 1 0",
    }
    assert f"Before: {before}, 5 runs" in done.stdout
    assert f"After: {figures.url}, 4 runs" in done.stdout


def test_diff_fails_a_build_by_growth_or_truncation_and_says_what(figures: Figures, before: Path) -> None:
    figures.add("music.scan", 121, cause="size")
    where = ["--redis-url", figures.url]
    for option in (["--fail-on-growth", "21%"], ["--fail-on-growth", "21"], []):
        assert argsize("diff", str(before), *where, *option).returncode == 0
    done = argsize("diff", str(before), *where, "--fail-on-growth", "20.5 %")
    assert done.returncode == 1
    assert "music.scan (args): grew by 21.0 %, mean 100 -> 121 characters; allowed: 20.5 %" in done.stdout
    done = argsize("diff", str(before), *where, "--fail-on-truncation", "--json")
    assert done.returncode == 1
    data = json.loads(done.stdout)
    (failure,) = data["failures"]
    assert (failure["task"], failure["part"], failure["reason"]) == ("music.scan", "args", "truncation")
    assert data["tasks"]["music.scan"]["args"]["growth_percent"] == 21
    assert "music.scan (args): newly truncated" in done.stderr


def test_diff_of_two_files_and_of_stdin_needs_no_redis(before: Path) -> None:
    done = argsize("diff", str(before), str(before), "--all")
    assert done.returncode == 0, done.stderr
    assert "Tasks: 4 unchanged." in done.stdout
    piped_in = subprocess.run(
        [CELERY, "argsize", "diff", "-", str(before)], input=before.read_bytes(), capture_output=True, check=False
    )
    assert piped_in.returncode == 0, piped_in.stderr
    assert b"Before: stdin, 5 runs" in piped_in.stdout
    before.write_text(before.read_text(), encoding="utf-16")  # as PowerShell's > writes it
    assert argsize("diff", str(before), str(before)).returncode == 0


def test_diff_with_nothing_on_one_side_proves_nothing(figures: Figures, before: Path, tmp_path: Path) -> None:
    done = argsize("diff", str(before), "--redis-url", figures.url, "--fail-on-growth", "20%")
    assert done.returncode == 1
    assert f"Nothing was measured in {figures.url}" in done.stderr
    empty = tmp_path / "empty.json"
    empty.write_text(argsize("report", "--json", "--redis-url", figures.url).stdout)
    done = argsize("diff", str(empty), str(before))
    assert done.returncode == 1
    assert f"Nothing was measured in {empty}" in done.stderr


@pytest.mark.slow
def test_where_nothing_was_reset_growth_shows_in_part_and_proves_nothing(figures: Figures, tmp_path: Path) -> None:
    figures.add("music.scan", *[100] * 10)
    before = tmp_path / "before.json"
    before.write_text(argsize("report", "--json", "--redis-url", figures.url).stdout)
    figures.add("music.scan", 200)
    where = ["diff", str(before), "--redis-url", figures.url]
    plain = argsize(*where)
    assert plain.returncode == 0
    assert "After includes Before" in plain.stdout
    for options in (["--fail-on-growth", "20%"], ["--fail-on-truncation"], ["--fail-on-growth", "20%", "--json"]):
        done = argsize(*where, *options)
        assert done.returncode == 1
        assert "Nothing is proven." in done.stderr
        assert "argsize reset" in done.stderr
    figures.store.reset("music.scan")
    figures.add("music.scan", 100)
    done = argsize(*where, "--fail-on-growth", "20%")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "After includes Before" not in done.stdout


@pytest.mark.parametrize("command", ["report --json", "report", "recommend", "check --max-bytes 1MB", "diff FILE FILE"])
def test_what_cannot_be_written_is_an_error_of_its_own(figures: Figures, before: Path, command: str) -> None:
    figures.add("music.scan", 100)
    words = [str(before) if word == "FILE" else word for word in command.split()]
    where = [] if words[0] == "diff" else ["--redis-url", figures.url]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [CELERY, "argsize", *words, *where], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.slow
def test_a_person_is_told_what_a_command_waits_for(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path).start()
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        for command in (["report"], ["recommend"], ["check", "--no-truncation"], ["watch"]):
            with terminal(CELERY, "argsize", *command, "--redis-url", redis.url, env={**os.environ}) as shown:
                shown.wait_for("Reading Redis …")
        done = argsize("report", "--redis-url", f"{redis.url}?socket_timeout=2")
        assert (done.returncode, "Reading" in done.stderr) == (3, False), "a script is not"
    finally:
        os.kill(redis.pid, signal.SIGCONT)
        redis.stop()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON; make one with: celery -A proj argsize report --json > FILE"),
        (b"Nothing has been measured yet", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"NaN", "is not JSON"),
        (b"[1]", "is not a report of celery-argsize"),
        (b'{"schema": 7}', "has schema 7, and this version of celery-argsize reads 1"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "old.json"
    file.write_bytes(content)
    done = argsize("diff", str(file), str(file))
    assert done.returncode == 2
    assert f"Error: {file} {said}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["missing.json"], "missing.json"),
        (["-", "-"], "cannot both be read from stdin"),
        (["FILE", "FILE", "--redis-url", "redis://127.0.0.1/0"], "leave out --redis-url"),
        (["FILE", "FILE", "--fail-on-growth", "lots"], "'lots' is not a number of percent, such as 20%"),
        (["FILE", "FILE", "--fail-on-growth", "-5"], "'-5' is not a number of percent"),
        (["FILE", "FILE", "--fail-on-growth", "nan"], "'nan' is not a number of percent"),
    ],
)
def test_bad_usage_of_diff(tmp_path: Path, options: list[str], said: str) -> None:
    file = tmp_path / "before.json"
    file.write_text("{}")
    done = argsize("diff", *(str(file) if option == "FILE" else option for option in options))
    assert done.returncode == 2
    assert said in done.stderr


# check


def test_check_finds_the_offenders(figures: Figures) -> None:
    where = ["--redis-url", figures.url]
    figures.add("music.scan", 1026, 1024, cause="size")
    figures.add("insert", 100, kwargs=1025)
    done = argsize("check", *where, "--max-bytes", "1KB", "--no-truncation")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "  music.scan (args): 1,026 bytes, allowed: 1,024; 2 truncated (2 by size)",
        "  insert (kwargs): 1,025 bytes, allowed: 1,024",
    ]
    assert argsize("check", *where, "--max-bytes", "1026").returncode == 0
    assert argsize("check", *where, "--max-bytes", "1 mb", "--no-truncation").returncode == 1
    done = argsize("check", *where, "--no-truncation", "--task", "insert")
    assert (done.returncode, done.stdout) == (0, "All is within the bounds (runs: 1, task names: 1).\n")
    data = json.loads(argsize("check", *where, "--no-truncation", "--json").stdout)
    assert data["within"] is False
    (offender,) = data["offenders"]
    assert offender == {
        "task": "music.scan",
        "part": "args",
        "max_bytes": None,
        "truncated": 2,
        "truncated_by": {"size": 2},
    }


def test_check_counts_bytes_and_not_characters(figures: Figures) -> None:
    figures.add_parts("songs", (Part(Size(10, 30), "intact"), Part(Size(0, 0), "intact")))
    assert argsize("check", "--redis-url", figures.url, "--max-bytes", "29").returncode == 1
    assert argsize("check", "--redis-url", figures.url, "--max-bytes", "30").returncode == 0


def test_check_says_what_it_does_not_know(figures: Figures) -> None:
    figures.add_parts("sockets", (Part(None), Part(Size(0, 0))))
    done = argsize("check", "--redis-url", figures.url, "--max-bytes", "1MB", "--no-truncation")
    assert done.stdout.splitlines() == [
        "All that is known is within the bounds (runs: 1, task names: 1).",
        "Note: parts without a JSON form, whose size is not known: 1",
        "Note: parts that came without a repr of Celery's making, where nothing shows a cut: 2",
    ]


@pytest.mark.parametrize("options", [[], ["--json"], ["--task", "scan"]])
def test_where_nothing_was_measured_check_proves_nothing(redis_url: str, options: list[str]) -> None:
    done = argsize("check", "--redis-url", redis_url, "--no-truncation", *options)
    assert done.returncode == 1
    assert "Nothing has been measured yet" in (done.stderr if "--json" in options else done.stdout)
    if "--json" in options:
        assert json.loads(done.stdout)["within"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say what is to be checked"),
        (["--max-bytes", "1.5KB"], "'1.5KB' is not a whole number of bytes, such as 1000, 512KB or 1MB"),
        (["--max-bytes", "-1"], "is not a whole number of bytes"),
        (["--max-bytes", "9GB"], "is not a whole number of bytes"),
        (["--no-truncation", "--task", "music.scam"], "no task named 'music.scam' was measured; perhaps: music.scan"),
    ],
)
def test_bad_usage_of_check(figures: Figures, options: list[str], said: str) -> None:
    figures.add("music.scan", 5)
    done = argsize("check", "--redis-url", figures.url, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_check_and_diff_without_redis_end_with_3(before: Path) -> None:
    nowhere = ["--redis-url", f"redis://127.0.0.1:{free_port()}/0"]
    assert argsize("check", *nowhere, "--no-truncation").returncode == 3
    assert argsize("diff", str(before), *nowhere).returncode == 3


def test_check_and_diff_take_the_app_given_with_a(scene: Scene, tmp_path: Path) -> None:
    workload = Figures(scene.broker, "workload")
    workload.add("of_workload", 10)
    Figures(scene.broker, "another").add("of_another", 5000)
    file = tmp_path / "before.json"
    file.write_text(run(CELERY, "-A", "workload", "argsize", "report", "--json", env=scene.env()).stdout)
    assert json.loads(file.read_text())["apps"] == ["workload"]
    for command in (["check", "--max-bytes", "10"], ["diff", str(file)]):
        done = run(CELERY, "-A", "workload", "argsize", *command, env=scene.env())
        assert done.returncode == 0, done.stderr
        assert "of_another" not in done.stdout


# help and completion


@pytest.mark.slow
def test_every_command_is_listed_and_shows_an_example() -> None:
    listed = argsize("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", listed, re.MULTILINE)
        shown = argsize(command, "--help")
        assert shown.returncode == 0
        assert re.search(rf"Example:\s+celery -A proj argsize {command}\b", shown.stdout), command


def test_options_that_an_app_adds_to_all_commands_are_its_own(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "adding.py").write_text(
        "import celery, click\napp = celery.Celery('adding')\n"
        "app.user_options['preload'].add(click.Option(['--tenant'], default='none'))\n"
    )
    command = [CELERY, "--workdir", str(tmp_path), "-A", "adding", "argsize", "--tenant", "one", "report"]
    done = run(*command, "--redis-url", redis_url)
    assert (done.returncode, done.stderr) == (1, "")
    assert "Nothing has been measured yet" in done.stdout


def completed(line: str) -> list[str]:
    """What bash would be given for *line*, up to its end."""
    words = line.split(" ")
    told = {"_CELERY_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = run(CELERY, env={**os.environ, **told})
    return [found.partition(",")[2] for found in done.stdout.splitlines()]


def test_the_shell_completes_commands_and_options() -> None:
    assert completed("celery argsize ") == [*COMMANDS]
    assert completed("celery argsize di") == ["diff"]
    assert completed("celery argsize diff --fa") == ["--fail-on-growth", "--fail-on-truncation"]
    assert completed("celery argsize check --max") == ["--max-bytes"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    done = run(CELERY, env={**os.environ, "_CELERY_COMPLETE": f"{shell}_source"})
    assert done.returncode == 0
    assert "_CELERY_COMPLETE" in done.stdout


def test_bash_completes_once_it_was_told_as_the_docs_say() -> None:
    """What bash does at a press of Tab, but for the press."""
    line = next(text for text in TERMINAL_DOCS.splitlines() if text.startswith("| bash")).split("`")[3]
    script = f"{line}\nCOMP_WORDS=(celery argsize wa)\nCOMP_CWORD=2\n_celery_completion celery\necho ${{COMPREPLY[@]}}"
    path = f"{BIN}:{os.environ['PATH']}"
    done = run("/bin/bash", "--norc", "-c", script, env={**os.environ, "PATH": path})
    assert done.stdout == "watch\n", done.stderr
