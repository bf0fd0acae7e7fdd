"""install() costs a producer nothing, may be called twice, measures one app only, and is undone by uninstall()."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals

import celery_argsize
from celery_argsize import ArgsizeError, ConfigError
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.settings import Settings
from celery_argsize.worker import monitor as monitors
from celery_argsize.worker.assembly import build_for_child

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("music", broker="memory://", set_as_current=False)
    yield app
    celery_argsize.uninstall(app)


def receivers() -> int:
    found = (signals.worker_init, signals.worker_process_init, signals.worker_shutdown, signals.task_prerun)
    return sum(len(signal.receivers) for signal in found)


def descriptors() -> int:
    return len([*Path("/dev/fd").iterdir()])


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.smoke
def test_it_is_free_in_a_producer() -> None:
    printed = in_a_new_process("""
        import os, sys, threading
        from celery import Celery
        import celery_argsize
        app = Celery("music", broker="redis://127.0.0.1:1/0")
        fds = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        celery_argsize.install(app)
        print(threading.active_count(), "redis" in sys.modules)
        print(fds == (os.listdir("/proc/self/fd") if fds else []), app.configured)
    """)
    assert printed == "1 False\nTrue False\n"


@pytest.mark.smoke
def test_importing_the_package_imports_next_to_nothing() -> None:
    printed = in_a_new_process("""
        import sys
        before = set(sys.modules)
        import celery_argsize
        heavy = {"celery", "redis", "kombu", "click", "logging"} & (set(sys.modules) - before)
        print(sorted(heavy))
    """)
    assert printed == "[]\n"


@pytest.mark.smoke
def test_our_commands_cost_celery_s_command_line_a_few_small_modules() -> None:
    printed = in_a_new_process("""
        import sys, celery.bin.celery
        for name in [name for name in sys.modules if name.startswith("celery_argsize.")]:
            del sys.modules[name]  # the entry point has loaded them
        before = set(sys.modules)
        import celery_argsize.commands.group
        print(*sorted(set(sys.modules) - before))
    """)
    ours = (
        "api api.inspect_command commands commands.group errors failure_log worker worker.monitor worker.remote_control"
    )
    assert printed.split() == [f"celery_argsize.{name}" for name in ours.split()]


@pytest.mark.smoke
def test_libraries_of_the_extra_cli_are_imported_by_who_needs_them() -> None:
    said = in_a_new_process("""
        import importlib, sys
        sys.modules["opentelemetry"] = None  # redis-py takes it where it is, and it takes psutil
        from celery_argsize.commands.group import COMMANDS
        for name in COMMANDS:
            importlib.import_module(f"celery_argsize.commands.{name}")
        print(*sorted({"jinja2", "psutil", "rich"} & set(sys.modules)))
    """)
    assert said == "\n"


@pytest.mark.smoke
def test_a_producer_imports_nothing_that_only_a_worker_needs() -> None:
    printed = in_a_new_process("""
        import sys
        from celery import Celery
        import celery_argsize
        app = Celery("music", broker="memory://", set_as_current=False)
        celery_argsize.install(app)

        @app.task
        def task(text):
            pass

        task.delay("x")
        task.apply(("x",))  # eager, and not to be counted
        print(*sorted(name for name in sys.modules if name.startswith("celery_argsize.")))
    """)
    ours = ["errors", "failure_log", "redis_url", "settings", "worker", "worker.install", "worker.monitor"]
    assert printed.split() == [f"celery_argsize.{name}" for name in ours]


@pytest.mark.smoke
def test_once_a_worker_has_started_nothing_is_imported(redis_url: str) -> None:
    """A fork while a thread imports a module would leave that import locked in the child."""
    printed = in_a_new_process(f"""
        import datetime, logging, os, sys
        from celery import Celery, signals
        from celery.utils.saferepr import saferepr
        import celery_argsize

        class Some:
            def __init__(self, **given):
                vars(self).update(given)

        logging.basicConfig()
        app = Celery("music", broker="memory://", set_as_current=False)
        monitor = celery_argsize.install(app, redis_url={redis_url!r}, large_task_chars=2_000)
        app.amqp  # workers have it before they have children
        monitor.start(monitor.settings, "tested@host", children=1)
        before = set(sys.modules)
        print("wcwidth" in before)

        def run(value, header=None):
            reprs = {{"argsrepr": header or saferepr((value,), 1024), "kwargsrepr": saferepr({{"k": value}}, 1024)}}
            request = Some(id="1", args=(), kwargs={{}}, origin="gen1@web-1", is_eager=False, **reprs)
            task = Some(app=app, name="work", request=request)
            signals.task_prerun.send(sender=task, task=task, task_id="1", args=(value,), kwargs={{"k": value}})

        if not os.fork():
            run("x")
            run([{{"deep": [{{"deeper": [1]}}]}}] * 3)  # cut by depth
            run(["♫" * 50] * 9_000)  # by size, and large
            run([2**70, {{datetime.datetime.now()}}, chr(0xD800)] * 900)  # JSON lacks some of these
            run("x", "<a custom repr>")
            run("x", 7)
            signals.task_prerun.send(sender=None, task=Some(app=app, name="broken"))
            signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
            print("child", *sorted(set(sys.modules) - before), flush=True)
            os._exit(0)
        os.wait()
        monitor.flusher.flush(5)
        print("parent", *sorted(set(sys.modules) - before))
        signals.worker_shutdown.send(sender=Some(app=app))
        print(*((task.name, task.count, task.errors) for task in celery_argsize.get_size_summary(app).tasks))
    """)
    assert printed == "False\nchild\nparent\n('work', 6, 0) ('broken', 0, 1)\n"


def test_every_public_name_is_there() -> None:
    for name in celery_argsize.__all__:
        assert getattr(celery_argsize, name) is not None
    assert set(celery_argsize.__all__) <= set(dir(celery_argsize))
    assert celery_argsize.__version__
    with pytest.raises(AttributeError, match="no_such_name"):
        celery_argsize.no_such_name  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.smoke
def test_twice_is_once_and_the_later_settings_win(app: Celery) -> None:
    before = receivers()
    first = celery_argsize.install(app, flush_interval=3)
    installed = receivers()
    second = celery_argsize.install(app, large_task_chars=7)
    assert second is first
    assert receivers() == installed > before
    assert (first.settings.flush_interval, first.settings.large_task_chars) == (3.0, 7)


@pytest.mark.smoke
def test_uninstall_undoes_it(app: Celery) -> None:
    before = receivers()
    celery_argsize.install(app)
    celery_argsize.uninstall(app)
    celery_argsize.uninstall(app)
    assert receivers() == before
    assert monitors.installed(app) is None


def test_a_wrong_setting_installs_nothing(app: Celery) -> None:
    with pytest.raises(ConfigError):
        celery_argsize.install(app, flush_interval=-1)
    assert monitors.installed(app) is None


def test_the_app_may_be_configured_later(app: Celery) -> None:
    monitor = celery_argsize.install(app)
    app.conf.argsize_large_task_chars = 5
    assert monitor.settings.large_task_chars == 5


def test_a_proxy_of_the_app_is_the_app() -> None:
    printed = in_a_new_process("""
        import celery, celery_argsize
        app = celery.Celery("music", broker="memory://")
        print(celery_argsize.install(celery.current_app) is celery_argsize.install(app))
    """)
    assert printed == "True\n"


class FakeWorker:
    """Stands for the worker that sends ``worker_init``."""

    pool_cls = "solo"
    pool_start_method = "fork"
    hostname = "tested@host"
    concurrency = 2

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.options: dict[str, object] = {}


def work(*_: Any, **__: Any) -> int:
    return 42


def eager(task: Any, *args: Any) -> None:
    task.apply(args)


@pytest.mark.smoke
def test_two_apps_in_one_process_do_not_mix(app: Celery) -> None:
    other = Celery("billing", broker="memory://", set_as_current=False)
    tasks = {each: each.task(name="work")(work) for each in (app, other)}
    celery_argsize.install(app, include_eager=True)
    celery_argsize.install(other, include_eager=True)
    try:
        signals.worker_init.send(sender=FakeWorker(app))
        eager(tasks[app], "x" * 10)
        eager(tasks[other], "x" * 100)
        eager(tasks[other], "x" * 100)
        (ours,) = celery_argsize.get_size_summary(app).tasks
        (theirs,) = celery_argsize.get_size_summary(other).tasks
        assert (ours.count, ours.args.max, theirs.count, theirs.args.max) == (1, 14, 2, 104)
        with pytest.raises(ConfigError, match="no single app"):
            celery_argsize.get_size_summary()
    finally:
        celery_argsize.uninstall(other)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.smoke
def test_eager_runs_outside_a_worker_count_when_asked_in_any_way(app: Celery, asked: bool) -> None:  # noqa: FBT001
    celery_argsize.install(app)
    app.conf.argsize_include_eager = asked
    task = app.task(name="work")(work)
    for _ in range(3):
        eager(task, "x")
    if asked:
        assert celery_argsize.get_size_summary(app).total_tasks == 3
    else:
        with pytest.raises(ConfigError):  # nothing was started
            celery_argsize.get_size_summary(app)


def test_first_eager_runs_of_many_threads_at_once_all_count(app: Celery) -> None:
    celery_argsize.install(app, include_eager=True)
    task = app.task(name="work")(work)
    app.finalize()
    barrier = threading.Barrier(16)

    def run() -> None:
        barrier.wait()
        task.apply(("x",))

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert celery_argsize.get_size_summary(app).total_tasks == 16


def test_a_start_that_fails_leaves_nothing_behind(
    app: Celery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    celery_argsize.install(app, redis_url="rediss://127.0.0.1/0", redis_ssl_ca_certs=str(tmp_path / "none.pem"))
    worker = FakeWorker(app)
    worker.pool_cls, worker.pool_start_method = "prefork", "spawn"
    gc.collect()  # what earlier tests left open is not to be closed in between
    before = descriptors()
    signals.worker_init.send(sender=worker)
    assert "none.pem" in caplog.text
    assert descriptors() == before
    assert "_CELERY_ARGSIZE_CHILDREN" not in os.environ


def test_without_the_memory_to_share_the_log_names_the_setting_and_no_folder_stays(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    celery_argsize.install(app, max_task_names=10**17)
    worker = FakeWorker(app)
    worker.pool_cls, worker.pool_start_method = "prefork", "spawn"
    gc.collect()
    before = descriptors()
    signals.worker_init.send(sender=worker)
    assert "lower argsize_max_task_names" in caplog.text
    assert descriptors() == before
    assert [*tmp_path.iterdir()] == []


def test_a_spawned_child_with_other_settings_does_not_touch_the_memory(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a smaller file, the worker would die at the next reading."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    celery_argsize.install(app)
    worker = FakeWorker(app)
    worker.pool_cls, worker.pool_start_method = "prefork", "spawn"
    signals.worker_init.send(sender=worker)
    (folder,) = tmp_path.iterdir()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    build_for_child(app, Settings(), str(folder), 2)
    for other in (Settings(max_task_names=10), Settings(large_task_chars=2000)):
        with pytest.raises(ArgsizeError, match="restart"):
            build_for_child(app, other, str(folder), 2)
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == sizes


def test_a_measurement_of_the_callers_own_is_made_to_fit(app: Celery) -> None:
    celery_argsize.install(app, include_eager=True)
    app.task(name="work")(work).apply(("x",))
    part = Part(Size(1, 1))
    celery_argsize.update_size_metrics(Measurement("n" * 100_000, "i" * 100_000, part, part, 1.0, "h" * 100_000), app)
    names = {task.name for task in celery_argsize.get_size_summary(app).tasks}
    assert max(map(len, names)) <= 160


def test_a_wrong_setting_is_said_once_and_eager_tasks_run(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    celery_argsize.install(app, include_eager=True)
    app.conf.argsize_color = "red"
    task = app.task(name="work")(work)
    assert [task.apply(("x",)).get() for _ in range(5)] == [42] * 5
    assert caplog.text.count("cannot count eager tasks") == 1


@pytest.mark.smoke
def test_a_receiver_that_fails_does_not_reach_the_task(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    task = app.task(name="work")(work)
    celery_argsize.install(app, include_eager=True)
    signals.worker_init.send(sender=FakeWorker(app))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("celery_argsize.worker.region.Region.count", fail)
    assert task.apply(("x",)).get() == 42
    assert [(task.count, task.errors) for task in celery_argsize.get_size_summary(app).tasks] == [(0, 1)]


def test_public_functions_on_an_app_without_redis(app: Celery) -> None:
    celery_argsize.install(app)
    with pytest.raises(ConfigError, match="redis_url is not set"):
        celery_argsize.get_size_summary()
    task = app.task(name="work")(work)
    measurement = celery_argsize.measure_celery_task_size(task, "some-id", ("x" * 50_000,), {"a": "é"})
    assert (measurement.task, measurement.task_id) == ("work", "some-id")
    assert (measurement.args.size, measurement.kwargs.size) == ((50_004, 50_004), (9, 10))
    celery_argsize.update_size_metrics(measurement)
    celery_argsize.update_size_metrics(measurement)
    assert celery_argsize.get_size_summary().total_tasks == 2
    advice = celery_argsize.auto_configure_celery_limits()
    assert (advice.limit, advice.tier) == (60_004, 131_072)
    result = celery_argsize.reset_metrics(task="work")
    assert result.task == "work"
    assert celery_argsize.get_size_summary().total_tasks == 0
