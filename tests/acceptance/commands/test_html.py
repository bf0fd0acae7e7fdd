"""``report --html`` as people meet it: the command's file, looked at in a real Chromium."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.pages import LIBRARY, Browser, many, page_of, seen
from support.servers import BIN, free_port, run

import celery_argsize
from celery_argsize import Measurement, Part, ReprLimits, Size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from support.scene import Scene
    from support.simulate import Call

#: A folder for the pictures, for who wants to look at them.
PICTURES = os.environ.get("ARGSIZE_PICTURES")

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=window.ran=1>",
    "{{7*7}}{% raw %}",
    "</style><h1>no</h1>",
    "a &lt; b &amp; c",
    "任务.导入 🎵",
    "x" * 160,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    started = Browser()
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "page.html"
    limits = {"library.extract": ReprLimits(args=131_072)}
    file.write_text(page_of(seen(LIBRARY), limits=lambda name: limits.get(name, ReprLimits())))
    return file


# -- in the browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("look", "width"), [("light", 1280), ("dark", 1280), ("light", 768), ("dark", 360)])
def test_it_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, page: Path, tmp_path: Path, look: str, width: int
) -> None:
    picture = Path(PICTURES or tmp_path) / f"{look}-{width}.png"
    answer = browser("look", page, scheme=look, width=width, height=740, screenshot=str(picture))
    assert answer["console"] == []
    assert answer["requests"] == [f"file://{page}"]
    assert answer["result"]["width"] <= width, "the page itself does not scroll sideways"
    red, green, blue = (int(text) for text in answer["result"]["paper"][4:-1].split(","))
    assert (red + green + blue > 600) == (look == "light")
    assert answer["result"]["title"] == "Celery size metrics: music"
    assert picture.stat().st_size > 10_000


def test_on_a_phone_the_table_scrolls_and_the_page_does_not(browser: Browser, page: Path) -> None:
    found = browser("look", page, width=360, height=740, open=True)["result"]
    assert found["width"] == 360
    assert found["table"]["scrollWidth"] > found["table"]["clientWidth"]
    assert found["table"]["tabIndex"] == 0, "who has only a keyboard can scroll it"


def test_it_prints_without_what_is_to_be_pressed(browser: Browser, page: Path, tmp_path: Path) -> None:
    file = Path(PICTURES or tmp_path) / "page.pdf"
    answer = browser("print", page, scheme="dark", pdf=str(file))
    found = answer["result"]
    assert file.read_bytes().startswith(b"%PDF")
    assert answer["console"] == []
    assert (found["paper"], found["overflow"]) == ("rgb(255, 255, 255)", "visible")
    assert found["width"] <= 720
    assert "input false" in found["shown"]
    assert "svg true" in found["shown"]


def test_sorting_by_keyboard(browser: Browser, page: Path) -> None:
    steps = [
        ("Runs", "Enter"),
        ("Runs", "Space"),
        ("Mean kwargs", "Enter"),
        ("Truncated", "Space"),
        ("Advice", "Enter"),
    ]
    first, down, up, mean, cut, advice = browser("sort", page, steps=steps)["result"]
    assert first["names"][:2] == ["playlists.export", "library.extract"]
    assert first["sorted"] == {"Max": "descending"}
    assert down["names"] == ["mail.welcome", "library.extract", "library.insert", "playlists.export", "library.scan"]
    assert down["sorted"] == {"Runs": "descending"}
    assert (up["names"], up["sorted"]) == (down["names"][::-1], {"Runs": "ascending"})
    assert mean["names"][0] == "library.insert"
    assert mean["sorted"] == {"Mean kwargs": "descending"}
    assert cut["names"][0] == "library.insert"
    assert [*advice["sorted"].items()] == [("Advice", "ascending")], "texts begin with A"
    assert {*advice["names"][:2]} == {"library.scan", "mail.welcome"}, "and those without advice before that"
    back = browser("sort", page, steps=[("Task", "Enter"), ("Task", "Enter")])["result"]
    assert back[1]["names"] == sorted(LIBRARY)
    assert back[2]["names"] == sorted(LIBRARY, reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_accessible(browser: Browser, page: Path, scheme: str, width: int) -> None:
    assert browser("axe", page, scheme=scheme, width=width)["result"] == []
    assert browser("axe", page, scheme=scheme, width=width, open=True)["result"] == []


def test_the_filter_and_the_links(browser: Browser, page: Path) -> None:
    some, none, all_of_them = browser("filter", page, texts=["LIBRARY.", "nothing so called", ""])["result"]
    assert sorted(some["rows"]) == sorted(some["details"]) == ["library.extract", "library.insert", "library.scan"]
    assert some["found"] == "3 of 5"
    assert (none["rows"], none["details"], none["found"]) == ([], [], "0 of 5")
    assert (len(all_of_them["rows"]), all_of_them["found"]) == (5, "")
    assert browser("open", page, name="mail.welcome")["result"] == [False, True, 5, 0]


def test_what_the_filter_hides_is_not_opened(browser: Browser, page: Path) -> None:
    before, filtered, all_of_them, rest, closed = browser("openFiltered", page, text="mail")["result"]
    assert before == ["library.extract", "library.insert", "playlists.export"]
    assert filtered == sorted([*before, "mail.welcome"])
    assert all_of_them == [filtered, "Open all"], "as others are still closed"
    assert (len(rest), closed) == (5, [])


def test_on_a_phone_each_column_says_whose_it_is(browser: Browser, page: Path) -> None:
    assert browser("heads", page, width=1280)["result"] == {
        "said": [
            "Task",
            "Runs",
            "Max",
            "Max",
            "Mean",
            "p95 ≤",
            "Max",
            "Mean",
            "p95 ≤",
            "Max repr",
            "Truncated",
            "Advice",
        ],
        "groups": ["args", "kwargs"],
    }
    phone = browser("heads", page, width=360)["result"]
    assert phone["groups"] == []
    assert phone["said"][2:9] == [
        "Max",
        "Max args",
        "Mean args",
        "p95 ≤ args",
        "Max kwargs",
        "Mean kwargs",
        "p95 ≤ kwargs",
    ]


def test_without_scripts_all_is_there_but_what_needs_them(browser: Browser, page: Path) -> None:
    found = browser("look", page, scripts=False)["result"]
    assert "input false" in found["shown"]
    assert not [one for one in found["shown"] if one == "button true"]


def test_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    calls: dict[str, list[Call]] = {
        name: [((1,), {}), ((list(range(900)),), {}), (("x" * 200_000,), {})] * 15 for name in HOSTILE
    }
    file.write_text(page_of(seen(calls, app_name=HOSTILE[0]), broker="amqp"))
    selectors = ["script", "img", "svg[onload]", "style", "h1"]
    answer = browser("elements", file, selectors=selectors)
    assert answer["result"]["counts"] == [1, 0, 0, 1, 1]
    assert sorted(answer["result"]["names"]) == sorted(HOSTILE)
    assert sorted(answer["result"]["heads"]) == sorted(HOSTILE)
    assert answer["result"]["ran"] is None
    assert (answer["console"], answer["requests"]) == ([], [f"file://{file}"])
    assert browser("look", file, width=360, open=True)["result"]["width"] == 360
    assert browser("axe", file, open=True)["result"] == []


def test_columns_of_a_long_table_keep_their_widths(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(many(60))
    before, after, printed, narrow = browser("columns", file)["result"]
    assert (before["layout"], after["layout"]) == ("auto", "fixed")
    assert after["widths"] == pytest.approx(before["widths"], abs=1)
    assert (printed["layout"], narrow["layout"]) == ("auto", "auto")
    assert narrow["page"] == 720


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_a_thousand_tasks_only_what_is_near_the_window_is_drawn_and_all_are_sorted(
    browser: Browser, tmp_path: Path
) -> None:
    """How long that takes: benchmarks/page.py."""
    file = tmp_path / "page.html"
    file.write_text(many())
    assert file.stat().st_size < 6_000_000
    answer = browser("fluid", file)
    assert set(answer["result"]) == {"sort", "sorting", "one", "all", "scrolling", "filtering"}
    assert answer["console"] == []
    first, by_name = browser("sort", file, steps=[("Task", "Enter")])["result"]
    assert len(first["names"]) == 1000
    assert by_name["sorted"] == {"Task": "ascending"}
    assert sorted(by_name["names"]) == sorted(first["names"]) != by_name["names"][::-1]
    assert "content-visibility: auto" in file.read_text()


# -- the command ---------------------------------------------------------------------------------------------------


def report(*options: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return run(str(BIN / "celery"), *options, env=env)


def add(url: str) -> None:
    parts = Part(Size(45_678, 45_678), "intact", 800), Part(Size(0, 0), "intact", 2)
    celery_argsize.update_size_metrics(Measurement("scan", "id", *parts, time.time()), redis_url=url)


def test_the_command_writes_the_page(redis_url: str, scene: Scene, tmp_path: Path, browser: Browser) -> None:
    add(redis_url)
    file = tmp_path / "page.html"
    file.write_text("the one before")
    with_app = ["-A", "workload", "argsize", "report", "--redis-url", redis_url, "--app-name", "celery", "--html", "-"]
    done = report(*with_app, env=scene.env())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.rstrip().endswith("</html>")
    assert "limit of the app now" in done.stdout
    secret = f"{redis_url}?client_name=sesame"
    done = report("argsize", "report", "--redis-url", secret, "--html", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"Written: {file}\n")
    assert [*tmp_path.glob("*html*")] == [file]
    assert "Celery's default limit" in file.read_text().replace("&#39;", "'")
    assert redis_url in file.read_text()
    assert "sesame" not in file.read_text()
    assert browser("look", file)["console"] == []


def test_where_nothing_was_measured_no_page_is_written(redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("the one before")
    done = report("argsize", "report", "--redis-url", redis_url, "--html", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "celery_argsize.install(app)" in done.stderr
    assert file.read_text() == "the one before"


def test_bad_usage(redis_url: str, tmp_path: Path) -> None:
    add(redis_url)
    where = ("argsize", "report", "--redis-url", redis_url)
    done = report(*where, "--json", "--html", str(tmp_path / "page.html"))
    assert done.returncode == 2
    assert "--json and --html cannot be given together" in done.stderr
    nowhere = tmp_path / "no" / "page.html"
    for bad, why in (
        (nowhere, f"Error: --html {nowhere} cannot be written: No such file or directory"),
        (tmp_path, f"Invalid value for '--html': File '{tmp_path}' is a directory."),
        ("", "Error: --html  cannot be written: No such file or directory"),
    ):
        done = report(*where, "--html", str(bad))
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o644, 0o644), (0o640, 0o640)])
def test_a_file_that_is_replaced_keeps_its_mode(redis_url: str, tmp_path: Path, before: int | None, after: int) -> None:
    add(redis_url)
    file = tmp_path / "page.html"
    if before is not None:
        file.touch()
        file.chmod(before)
    command = (str(BIN / "celery"), "argsize", "report", "--redis-url", redis_url, "--html", str(file))
    done = run("sh", "-c", 'umask 077; exec "$@"', "sh", *command)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == after


def test_a_link_stays_one_and_a_pipe_is_written_to(redis_url: str, tmp_path: Path) -> None:
    add(redis_url)
    command = (str(BIN / "celery"), "argsize", "report", "--redis-url", redis_url, "--html")
    (tmp_path / "there").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to("there/page.html")
    for _ in range(2):  # the target is made, and then replaced
        done = run(*command, str(link))
        assert (done.returncode, done.stderr) == (0, f"Written: {link}\n")
        assert link.is_symlink()
        assert [file.name for file in (tmp_path / "there").iterdir()] == ["page.html"]
        assert link.read_text().startswith("<!doctype html>")
    piped = run("sh", "-c", '"$@" /dev/stdout | cat', "sh", *command)
    assert (piped.stdout[:15], piped.stderr) == ("<!doctype html>", "Written: /dev/stdout\n")


def test_the_page_before_stays_where_the_disk_is_full(redis_url: str, tmp_path: Path) -> None:
    add(redis_url)
    file = tmp_path / "page.html"
    file.write_text("the one before")
    command = (str(BIN / "celery"), "argsize", "report", "--redis-url", redis_url, "--html", str(file))
    done = run("sh", "-c", 'ulimit -f 8; trap "" XFSZ; exec "$@"', "sh", *command)
    assert (done.returncode, done.stderr) == (2, f"Error: --html {file} cannot be written: File too large\n")
    assert file.read_text() == "the one before"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_in_plain_words(redis_url: str) -> None:
    add(redis_url)
    command = (str(BIN / "celery"), "argsize", "report", "--redis-url", redis_url, "--html", "-")
    done = run("sh", "-c", 'exec "$@" > /dev/full', "sh", *command)
    assert (done.returncode, done.stderr) == (2, "Error: the output cannot be written: No space left on device\n")


def test_who_reads_only_the_beginning_sees_no_error(redis_url: str) -> None:
    add(redis_url)
    command = (str(BIN / "celery"), "argsize", "report", "--redis-url", redis_url, "--html", "-")
    done = run("sh", "-c", '"$@" | head -c 15', "sh", *command)
    assert (done.stdout, done.stderr) == ("<!doctype html>", "")


def test_the_shell_completes_names_of_files() -> None:
    words = "celery argsize report --html s"
    env = {**os.environ, "_CELERY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}
    assert report(env=env).stdout == "file,s\n"


def test_buckets_are_those_of_the_app(redis_url: str, scene: Scene) -> None:
    add(redis_url)
    command = ["-A", "workload", "argsize", "report", "--redis-url", redis_url, "--app-name", "celery", "--html", "-"]
    done = report(*command, env={**scene.env(), "CELERY_ARGSIZE_HISTOGRAM_BUCKETS": "100,70000"})
    assert done.returncode == 0, done.stderr
    assert ">100, 1,024, 70,000<" in done.stdout, "with the one that was filled"


def test_without_jinja2_it_says_what_to_install_before_it_reads(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['jinja2'] = None; from celery.__main__ import main; sys.exit(main())"
    url = f"redis://127.0.0.1:{free_port()}/0"
    command = [sys.executable, "-c", hidden, "argsize", "report", "--redis-url", url]
    done = run(*command, "--html", str(tmp_path / "page.html"))
    assert done.returncode == 2
    assert done.stderr == "Error: --html needs jinja2, which is not installed: pip install 'celery-argsize[cli]'\n"
    assert run(*command).returncode == 3, "the report needs no jinja2"
