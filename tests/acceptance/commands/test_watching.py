"""``celery argsize watch`` in a real terminal and in a pipe, with a real Redis that comes and goes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.figures import Figures
from support.proxy import Proxy
from support.servers import APPS, BIN, RedisServer, free_port, run, stop, wait_until
from support.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scene import Scene

CELERY = str(BIN / "celery")


@pytest.fixture
def figures(redis_url: str) -> Iterator[Figures]:
    kept = Figures(redis_url)
    yield kept
    kept.store.close()


def watching(url: str, *options: str) -> list[str]:
    return [CELERY, "argsize", "watch", "--redis-url", url, "--interval", "0.5", *options]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def test_watch_repaints_in_place_and_ctrl_c_ends_it_with_the_terminal_as_it_was(figures: Figures) -> None:
    figures.add("music.scan", 100)
    figures.add("insert", 7)
    with terminal(*watching(figures.url), env=environment()) as shown:
        screen = shown.wait_for("music.scan")
        assert figures.url in screen.lines[0]
        assert not screen.cursor
        assert screen.alternate
        figures.add("music.scan", 2000, 2000, cause="size")
        screen = shown.wait_for("2 (+2)")
        assert sum("music.scan" in line for line in screen.lines) == 1, "painted over, not added"
        assert [line.split()[0] for line in screen.lines[4:6]] == ["music.scan", "insert"], "largest first"
        assert "↑ +" in screen.lines[4]
        assert "\x1b[1;31m" in shown.sent, "bold and red"
        shown.type("\x03")
        assert shown.end() == 0
        assert shown.screen.as_it_was
        assert "Traceback" not in shown.sent


@pytest.mark.slow
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_watch_ends_well_on_a_signal_even_while_it_waits_for_redis(
    figures: Figures, redis_server: RedisServer, sig: int
) -> None:
    figures.add("music.scan", 100)
    silent, asked, done = threading.Event(), threading.Event(), threading.Event()

    def choose(_request: bytes) -> str:
        if silent.is_set():
            asked.set()
            done.wait(30)
        return "pass"

    proxy = Proxy(redis_server.port, choose)
    try:
        with terminal(
            *watching(f"redis://127.0.0.1:{proxy.port}/0", "--app-name", "music"), env=environment()
        ) as shown:
            shown.wait_for("music.scan")
            silent.set()
            assert asked.wait(20)
            shown.process.send_signal(sig)
            assert shown.end(timeout=3) == 0
            assert shown.screen.as_it_was
            assert "Traceback" not in shown.sent
    finally:
        done.set()
        proxy.close()


@pytest.mark.slow
def test_watch_goes_on_when_redis_is_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    try:
        Figures(server.url).add("music.scan", 100)
        with terminal(*watching(server.url), env=environment()) as shown:
            shown.wait_for("music.scan")
            server.stop()
            screen = shown.wait_for("OLD FIGURES. Last read: ")
            assert "music.scan" in screen.text, "what was last known stays"
            server.start()
            Figures(server.url).add("after.restart", 10)
            screen = shown.wait_for("after.restart")
            assert "OLD FIGURES" not in screen.text
            assert "-" not in screen.lines[1].partition("newest")[0], "no negative rates"
            shown.type("\x03")
            assert shown.end() == 0
    finally:
        server.stop()


def test_watch_holds_one_connection(figures: Figures, redis_server: RedisServer) -> None:
    figures.add("music.scan", 100)

    def connected() -> int:
        with redis_server.client() as client:
            return int(client.info("stats")["total_connections_received"])

    with terminal(*watching(figures.url, "--app-name", "music"), env=environment()) as shown:
        shown.wait_for("music.scan")
        first = connected()
        for size in (200, 300, 400):
            figures.add("music.scan", size)
            shown.wait_for(f" {size} ")
        assert connected() == first + 1, "that of the second question itself"


def test_watch_waits_for_the_first_task(figures: Figures) -> None:
    with terminal(*watching(figures.url), env=environment()) as shown:
        shown.wait_for("Nothing has been measured yet")
        figures.add("music.scan", 100)
        assert "Nothing" not in shown.wait_for("music.scan").text


@pytest.mark.slow
def test_watch_fits_a_terminal_that_is_resized(figures: Figures) -> None:
    for number in range(40):
        figures.add(f"music.library.任務.{number}", 100 + number)
    with terminal(*watching(figures.url, "--interval", "60"), env=environment()) as shown:
        screen = shown.wait_for("… and 21 more")
        assert len(screen.lines) == 24
        shown.resize(10, 40)
        screen = shown.wait_for("… and 35 more")
        assert len(screen.lines) == 10
        shown.resize(60, 200)
        screen = shown.wait_for("music.library.任務.0 ")
        assert "more" not in screen.text
        shown.type("\x03")
        assert shown.end() == 0


@pytest.mark.slow
def test_ctrl_z_gives_the_terminal_back_until_the_shell_lets_watch_go_on(figures: Figures) -> None:
    figures.add("music.scan", 100)
    shell = ["/bin/bash", "--norc", "-c", 'set -m; "$@"; echo stopped; read; fg >/dev/null; exit $?', "bash"]
    with terminal(*shell, *watching(figures.url, "--interval", "60"), env=environment()) as shown:
        shown.wait_for("music.scan")
        shown.type("\x1a")
        shown.wait_for("stopped")
        assert shown.screen.as_it_was
        sent = len(shown.sent)
        shown.type("\n")
        wait_until(lambda: "music.scan" in shown.sent[sent:], what="the table")
        assert shown.screen.alternate
        shown.type("\x03")
        assert shown.end() == 0
        assert shown.screen.as_it_was


@pytest.mark.slow
def test_ctrl_z_where_there_is_no_shell_does_not_stop_it_for_good(figures: Figures) -> None:
    figures.add("music.scan", 100)
    with terminal(*watching(figures.url, "--interval", "60"), env=environment()) as shown:
        shown.wait_for("music.scan")
        sent = len(shown.sent)
        shown.type("\x1a")
        wait_until(lambda: "music.scan" in shown.sent[sent:], what="the table")
        shown.type("\x03")
        assert shown.end() == 0


@pytest.mark.slow
def test_watch_goes_on_where_the_terminal_knows_no_arrows(figures: Figures) -> None:
    figures.add("music.任務", 100)
    with terminal(*watching(figures.url), env=environment(PYTHONIOENCODING="ascii")) as shown:
        shown.wait_for("music.??")
        figures.add("music.任務", 1000)
        shown.wait_for("? +82 %")
        shown.type("\x03")
        assert shown.end() == 0


def test_watch_shows_only_the_tasks_that_are_wanted(figures: Figures) -> None:
    figures.add("music.scan", 100)
    figures.add("insert", 7)
    with terminal(*watching(figures.url, "--task", "music"), env=environment()) as shown:
        screen = shown.wait_for("music.scan")
        assert "insert" not in screen.text
        assert screen.lines[1].startswith("1 run;")


def test_a_reset_while_watching_is_a_new_beginning(figures: Figures) -> None:
    figures.add("music.scan", *[5000] * 50)
    with terminal(*watching(figures.url), env=environment()) as shown:
        shown.wait_for("50 runs")
        figures.store.reset()
        shown.wait_for("Nothing has been measured yet")
        figures.add("music.scan", 10, 10)
        row = next(line for line in shown.wait_for("2 runs").lines if "music.scan" in line)
        assert "5,000" not in row
        assert re.search(r"scan +\d", row), "a rate, and no negative one"


@pytest.mark.slow
@pytest.mark.parametrize(("options", "env"), [([], {"NO_COLOR": "1"}), (["--no-color"], {}), ([], {"TERM": "dumb"})])
def test_no_colors_where_they_are_not_wanted(figures: Figures, options: list[str], env: dict[str, str]) -> None:
    figures.add("music.scan", 100, cause="size")
    command = [CELERY, *options, *watching(figures.url)[1:]]
    with terminal(*command, env=environment(**env)) as shown:
        if "TERM" in env:
            wait_until(lambda: "Watching" in shown.sent, what="its beginning")
        else:
            shown.wait_for("music.scan")
        figures.add("music.scan", 100, cause="size")
        shown.wait_for("truncated=2" if "TERM" in env else "2 (+1)")
        shown.type("\x03")
        assert shown.end() == 0
        assert not re.search(r"\x1b\[[\d;]*m", shown.sent)
        assert shown.screen.as_it_was
        assert ("\x1b" in shown.sent) == ("TERM" not in env)


def piped(url: str, *options: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(watching(url, *options), stdout=pipe, stderr=pipe, text=True, cwd=APPS)


def test_where_there_is_no_terminal_watch_adds_plain_lines(figures: Figures) -> None:
    figures.add("music.scan", 100)
    figures.add("idle", 5)
    process = piped(figures.url)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == f"Watching: {figures.url}\n"
        figures.add("music.scan", 300, 300, cause="size")
        line = process.stdout.readline()  # comes at once: it is flushed
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ runs=2 rate=\S+ part=args p50=\d+ p95=300 max=300 ", line)
        assert line.endswith("truncated=2 new_truncated=2 trend=+29% task=music.scan\n")
        assert "\x1b" not in line
    finally:
        assert stop(process, signal.SIGTERM) == 0
        rest, errors = process.communicate()
    assert rest == ""
    assert "idle" not in line
    assert errors == ""


def test_a_pipe_that_is_closed_ends_watch_quietly(figures: Figures) -> None:
    figures.add("music.scan", 100)
    process = piped(figures.url)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.readline()
    figures.add("music.scan", 100)
    assert "music.scan" in process.stdout.readline()
    process.stdout.close()

    def ended() -> bool:
        figures.add("music.scan", 1)
        return process.poll() is not None

    wait_until(ended, what="the end")
    assert process.returncode == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_without_rich_it_says_what_to_install_and_nobody_else_needs_it() -> None:
    hidden = "import sys; sys.modules['rich'] = None; from celery.__main__ import main; sys.exit(main())"
    url = f"redis://127.0.0.1:{free_port()}/0"
    done = run(sys.executable, "-c", hidden, "argsize", "watch", "--redis-url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: watch needs rich, which is not installed: pip install 'celery-argsize[cli]'\n"
    assert run(sys.executable, "-c", hidden, "argsize", "report", "--redis-url", url).returncode == 3
    assert run(sys.executable, "-c", hidden, "argsize", "--help").returncode == 0


def test_a_redis_that_cannot_be_reached_at_first_is_an_error() -> None:
    port = free_port()
    done = run(*watching(f"redis://user:sesame@127.0.0.1:{port}/3"))
    assert done.returncode == 3
    assert f"redis://127.0.0.1:{port}/3" in done.stderr
    assert "sesame" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_watch_takes_the_app_given_with_a(scene: Scene) -> None:
    Figures(scene.broker, "workload").add("of_workload", 10)
    Figures(scene.broker, "another").add("of_another", 5000)
    with terminal(CELERY, "-A", "workload", "argsize", "watch", env=scene.env()) as shown:
        assert "of_another" not in shown.wait_for("of_workload").text
        shown.type("\x03")
        assert shown.end() == 0
