"""``install``, and the Celery signals by which a monitor starts and stops with its worker.

``install`` only connects receivers. The work begins at ``worker_init``,
in the main process, and ends at ``worker_shutdown``. A cold shutdown
and an embedded worker send no signal: then it ends at exit, or goes on
with the next worker of this process.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any, Final

from billiard import get_start_method
from celery import current_app, signals
from celery.concurrency import get_implementation

from celery_argsize.errors import ArgsizeError
from celery_argsize.failure_log import FailureLog, logger
from celery_argsize.settings import check
from celery_argsize.worker.monitor import Monitor, bare, monitors

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_argsize.settings import Settings
    from celery_argsize.worker.recorder import Recorder

#: Environment variable for spawned children: how many regions there are for them, and
#: the folder with the files that they open.
_CHILDREN_ENV: Final = "_CELERY_ARGSIZE_CHILDREN"

#: Modules of the pools whose tasks run in the worker's main process.
_POOLS_WITHOUT_CHILDREN: Final = [f"celery.concurrency.{name}" for name in ("solo", "thread", "gevent", "eventlet")]

_NO_REDIS: Final = (
    "celery_argsize: no Redis is configured, the figures of this worker are kept in its memory until it stops; "
    "set argsize_redis_url to keep them, and to see all workers together"
)


def install(app: Celery, **settings: Any) -> Monitor:
    """Measure the arguments of every task that workers of *app* run. Call it where the app is made.

    Outside workers it starts no thread and opens no connection. Call it again to change
    *settings*, until a worker has started.

    Raises:
        ConfigError: a setting does not exist, or its value cannot work.
    """
    app = bare(app)
    check(settings)
    monitor = monitors.get(id(app))
    if monitor is None:
        monitor = monitors[id(app)] = InstalledMonitor(app)
    monitor.overrides.update(settings)
    return monitor


def uninstall(app: Celery) -> None:
    """Undo ``install``, if it was called. A running worker writes what it has and stops measuring."""
    monitor = monitors.pop(id(bare(app)), None)
    if monitor is not None:
        monitor.stop(report=False)
        monitor.disconnect()


class InstalledMonitor(Monitor):
    """A monitor that starts and stops with the worker of its app."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._uid = f"celery_argsize.{id(app)}"
        self._children = 0
        self._starting = threading.Lock()
        self._listen(signals.worker_init, self._on_worker_init)
        self._listen(signals.worker_process_init, self._on_child_init)
        self._listen(signals.task_prerun, self._on_eager_run)

    def disconnect(self) -> None:
        """After ``stop``: ignore all signals."""
        self._ignore(signals.worker_init, signals.worker_process_init, signals.task_prerun)

    def _listen(self, signal: Any, receiver: Callable[..., None]) -> None:
        signal.connect(receiver, weak=False, dispatch_uid=self._uid)

    def _ignore(self, *all_signals: Any) -> None:
        for signal in all_signals:
            signal.disconnect(dispatch_uid=self._uid)

    # -- a worker starts

    def _on_worker_init(self, sender: Any = None, **_: Any) -> None:
        if bare(sender.app) is not self.app:
            return
        if self._recorder is None:
            self._ignore(signals.task_prerun)  # of _on_eager_run
        try:
            settings = self.settings
            if not settings.enabled:
                self.stop(report=False)
            else:
                pools = get_implementation(sender.pool_cls).__mro__
                in_process = any(pool.__module__ in _POOLS_WITHOUT_CHILDREN for pool in pools)
                start_methods = {getattr(sender, "pool_start_method", "fork"), get_start_method()}
                children = 0 if in_process else _most_children(sender)
                spawns = start_methods != {"fork"}
                # An embedded worker, as in tests, ends without worker_shutdown.
                if not self._serves(settings, children, spawns=spawns):
                    self.stop(report=False)
                    self.start(settings, sender.hostname, children=children, spawns=spawns)
        except ArgsizeError as exc:
            self._log(logger.error, "celery_argsize is off, and the worker runs without it: %s", exc)
        except Exception as exc:  # noqa: BLE001 - the worker must start
            self._log(FailureLog("could not start, and the worker runs without it").report, exc, logging.ERROR)

    def _serves(self, settings: Settings, children: int, *, spawns: bool) -> bool:
        """Whether an earlier worker of this process has started all that such a worker needs. It may still run."""
        parts = self._assembly
        return (
            parts is not None
            and bool(self.hostname)
            and parts.settings == settings
            and children <= self._children
            and (not spawns or parts.folder is not None)
        )

    def start(self, settings: Settings, hostname: str, *, children: int, spawns: bool = False) -> None:
        """Build and start the parts: see ``assembly.build``. A process without *hostname* is no worker."""
        if self.flusher is not None:
            return
        # Imported before the first fork, and never in producers.
        from celery_argsize.measuring.walk import NAME  # noqa: PLC0415
        from celery_argsize.worker import assembly  # noqa: PLC0415

        parts = assembly.build(self.app, settings, hostname, children=children, spawns=spawns)
        if not parts.store.shared:
            self._log(logger.warning, _NO_REDIS)
        if hostname:
            from celery_argsize.worker import remote_control  # noqa: F401, PLC0415 - registers its commands
        self._log(logger.debug, "celery_argsize measures by the %s walk", NAME)
        parts.flusher.start()
        if parts.server is not None:
            parts.server.start()
        self._pid, self.hostname, self.store, self._assembly = os.getpid(), hostname, parts.store, parts
        self._children = children
        self._connect_recorder(parts.recorder)
        if parts.folder is not None:
            os.environ[_CHILDREN_ENV] = f"{children}:{parts.folder}"
        self._listen(signals.worker_shutdown, self._on_worker_shutdown)
        atexit.register(self.stop)

    def _connect_recorder(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ignore(signals.task_prerun)  # of _on_eager_run
        self._listen(signals.task_prerun, recorder.on_task_prerun)

    def _log(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call *write* once the worker's log is set up."""
        uid = f"{self._uid}.{arguments[0]}"

        def write_once(**_: Any) -> None:
            signals.celeryd_after_setup.disconnect(dispatch_uid=uid)
            write(*arguments)

        if logger.hasHandlers():
            write(*arguments)
        else:
            signals.celeryd_after_setup.connect(write_once, weak=False, dispatch_uid=uid)

    def after_fork(self) -> None:
        """In a forked child: drop the parent's parts. Measure on if the parent gets the figures."""
        self._starting = threading.Lock()
        if self._assembly is not None and self._assembly.server is not None:
            self._assembly.server.abandon()
        if self._recorder is None:
            return
        if self._children:
            self._recorder.after_fork()
            return
        self._assembly = self.store = self._recorder = None
        self._ignore(signals.task_prerun)
        if not self.hostname:
            self._listen(signals.task_prerun, self._on_eager_run)

    def _on_child_init(self, **_: Any) -> None:
        """In a spawned child: open the files and measure."""
        children, folder = os.environ.get(_CHILDREN_ENV, "0:").split(":", 1)
        app = bare(current_app)  # a pickled copy of ours, in which the tasks run
        if not folder or self._recorder is not None or app.main != self.app.main:
            return
        with FailureLog("cannot measure in this process, which runs without it").caught(logging.ERROR):
            from celery_argsize.worker import assembly  # noqa: PLC0415 - not for producers

            self._connect_recorder(assembly.build_for_child(app, self.settings, folder, int(children)))

    def _on_worker_shutdown(self, sender: Any = None, **_: Any) -> None:
        if bare(sender.app) is self.app:
            self.stop()

    def stop(self, *, report: bool = True) -> None:
        """Stop measuring, write the rest, and log the report. Does nothing in a child."""
        parts = self._assembly
        if parts is None or self._pid != os.getpid():
            return
        self._assembly = self._recorder = None
        atexit.unregister(self.stop)
        self._ignore(signals.worker_shutdown, signals.task_prerun)
        unwritten, timeout = 0, parts.settings.shutdown_timeout
        failures = FailureLog("could not stop as it should, and some figures may be lost")
        with failures.caught(logging.ERROR):
            unwritten = parts.flusher.stop(timeout)
        with failures.caught(logging.ERROR):
            if parts.server is not None:
                parts.server.stop()
        if report and self.hostname:
            with failures.caught(logging.ERROR):
                # At the top, these would take half a megabyte in each child.
                from celery_argsize.figures.summary import summarize  # noqa: PLC0415
                from celery_argsize.views.report import shutdown_lines  # noqa: PLC0415

                for line in shutdown_lines(self.hostname, summarize(parts.flusher.read())):
                    logger.warning("%s", line)
        if unwritten:
            text = "celery_argsize: the figures of %d task runs could not be written within %g s and are lost"
            logger.error(text, unwritten, timeout)
        if parts.folder is not None:
            os.environ.pop(_CHILDREN_ENV, None)
            shutil.rmtree(parts.folder, ignore_errors=True)

    # -- eager runs in a process that is no worker

    def _on_eager_run(self, task: Any = None, **arguments: Any) -> None:
        """At the first eager run: start if ``include_eager``, else ignore the rest."""
        if task.app is not self.app or not task.request.is_eager:
            return
        failures = FailureLog("cannot count eager tasks in this process")
        with self._starting, failures.caught(logging.ERROR):  # other threads wait here
            settings = self.settings
            if self._recorder is None and settings.enabled and settings.include_eager:
                self.start(settings, "", children=0)
        if self._recorder is None:
            self._ignore(signals.task_prerun)
        else:
            self._recorder.on_task_prerun(task=task, **arguments)


def _most_children(worker: Any) -> int:
    """The most processes that the pool of *worker* is set up for."""
    autoscale = str(worker.options.get("autoscale") or "").partition(",")[0]
    numbers = [int(number) for number in (str(worker.concurrency), autoscale) if number.isdecimal()]
    return max(numbers, default=os.cpu_count() or 1)


def _after_fork() -> None:
    for monitor in monitors.values():
        monitor.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
