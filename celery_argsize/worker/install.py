"""install() and uninstall(), and what starts and stops with a worker.

``install`` connects three signal receivers and does nothing else, so that it is free in a producer; what does the work
(``assembly``) is not even imported. The work begins at ``worker_init``, in the worker's main process, and ends at
``worker_shutdown``, or at exit where a cold shutdown sends no signal.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from functools import partial
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
    from celery_argsize.worker.assembly import Assembly
    from celery_argsize.worker.handoff import Handoff, PipeWriter
    from celery_argsize.worker.recorder import Recorder

#: Tells a spawned child (a fresh interpreter, which inherits no pipe) where the pipe is.
_HANDOFF_ENV: Final = "_CELERY_ARGSIZE_HANDOFF"

#: Pools whose tasks run in the worker's main process.
_IN_PROCESS: Final = ("solo", "thread", "gevent", "eventlet")

_NO_REDIS: Final = (
    "celery_argsize: no Redis is configured, the figures of this worker are kept in its memory until it stops; "
    "set argsize_redis_url to keep them, and to see all workers together"
)


def install(app: Celery, **settings: Any) -> Monitor:
    """Measure the arguments of every task that workers of *app* run.

    Call it where the app is made, so that every process that has the app has the monitor. Free outside a worker: no
    thread, no connection. Calling it again is harmless; settings of the later call win, until a worker has started.

    Raises:
        ConfigError: a setting that does not exist, or a value that cannot work.
    """
    app = bare(app)
    check(settings)
    monitor = monitors.get(id(app))
    if monitor is None:
        monitor = monitors[id(app)] = _Installed(app)
        monitor.connect()
    monitor.overrides.update(settings)
    return monitor


def uninstall(app: Celery) -> None:
    """Undo ``install``; a worker that is running writes what it has and stops measuring. Harmless if not installed."""
    monitor = monitors.pop(id(bare(app)), None)
    if isinstance(monitor, _Installed):
        monitor.stop(report=False)
        monitor.disconnect()


class _Installed(Monitor):
    """A monitor that listens to Celery's signals: it starts with a worker, and stops with it."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._shutdown_timeout = 0.0
        self._starting = threading.Lock()

    # -- signals ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Listen for the start of a worker."""
        self._listen(signals.worker_init, self._on_worker_init)
        self._listen(signals.worker_process_init, self._on_child_init)
        # Outside workers, only eager runs send this one: it costs nothing where tasks are merely sent.
        self._listen(signals.task_prerun, self._on_eager)

    def disconnect(self) -> None:
        """Stop listening for anything."""
        for signal in (
            signals.worker_init,
            signals.worker_process_init,
            signals.worker_shutdown,
            signals.worker_process_shutdown,
            signals.task_prerun,
        ):
            signal.disconnect(dispatch_uid=self._uid)

    @property
    def _uid(self) -> str:
        return f"celery_argsize.{id(self.app)}"

    def _listen(self, signal: Any, receiver: Callable[..., None]) -> None:
        signal.connect(receiver, weak=False, dispatch_uid=self._uid)

    def _on_worker_init(self, sender: Any = None, **_: Any) -> None:
        if bare(sender.app) is not self.app:
            return
        signals.task_prerun.disconnect(dispatch_uid=self._uid)  # _on_eager is for other processes
        try:
            settings = self.settings
            if settings.enabled:
                in_process = _runs_in_process(sender.pool_cls)
                methods = {getattr(sender, "pool_start_method", "fork"), get_start_method()}
                spawns = methods != {"fork"}
                self.start(settings, sender.hostname, in_process=in_process, spawns=spawns)
        except ArgsizeError as exc:
            self._say(partial(logger.error, "celery_argsize is off, and the worker runs without it: %s", exc))
        except Exception as exc:  # noqa: BLE001 - the worker must start
            self._say(partial(FailureLog("could not start, and the worker runs without it").report, exc, logging.ERROR))

    def _say(self, log: Callable[[], None]) -> None:
        """Call *log*, or, as ``worker_init`` comes before the worker sets up its log, do so once it has."""

        def say(**_: Any) -> None:
            signals.celeryd_after_setup.disconnect(dispatch_uid=self._uid)
            log()

        if logger.hasHandlers():
            say()
        else:
            self._listen(signals.celeryd_after_setup, say)

    def _on_child_init(self, **_: Any) -> None:
        """In a spawned child: open the pipe that a forked one would have inherited."""
        path = os.environ.get(_HANDOFF_ENV)
        # Its tasks belong to a copy of the app, which came pickled from the main process and is the current one.
        app = bare(current_app)
        if path is None or self._recorder is not None or app.main != self.app.main:
            return
        try:
            from celery_argsize.worker import assembly  # noqa: PLC0415 - as in start()

            self._attend(*assembly.join(app, self.settings, path))
        except Exception as exc:  # noqa: BLE001 - the child must start
            FailureLog("cannot measure in this process, which runs without it").report(exc, logging.ERROR)

    def _on_eager(self, task: Any = None, **arguments: Any) -> None:
        """The first eager run outside a worker: start what a worker's start does, if they are to be counted."""
        if task.app is not self.app or not task.request.is_eager:
            return
        with self._starting:  # first runs in other threads wait for the one that starts
            if self._recorder is None:
                self._start_for_eager()
        if self._recorder is not None:
            self._recorder.on_task_prerun(task=task, **arguments)

    def _start_for_eager(self) -> None:
        try:
            settings = self.settings
            if settings.enabled and settings.include_eager:
                self.start(settings, "", in_process=True)
                return
        except Exception as exc:  # noqa: BLE001 - the task must run
            FailureLog("cannot count eager tasks in this process").report(exc, logging.ERROR)
        signals.task_prerun.disconnect(dispatch_uid=self._uid)

    def after_fork(self) -> None:
        """In a child: leave what is the parent's alone. Where tasks ran in the parent itself, begin anew."""
        self._starting = threading.Lock()
        if self._assembly is not None and self._assembly.server is not None:
            self._assembly.server.abandon()
        if self._handoff is None or self._handoff.after_fork():
            return
        self._assembly = self.store = self._handoff = self._recorder = None
        signals.task_prerun.disconnect(dispatch_uid=self._uid)
        if not self.hostname:
            self._listen(signals.task_prerun, self._on_eager)

    def _on_worker_shutdown(self, sender: Any = None, **_: Any) -> None:
        if bare(sender.app) is self.app:
            self.stop()

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self, settings: Settings, hostname: str, *, in_process: bool, spawns: bool = False) -> None:
        """Start measuring in this process (*in_process*), or in the children it will have."""
        if self.flusher is not None:
            return
        # Here and not at the top, for a producer's sake; before the first fork, and before there is a thread.
        from celery_argsize.worker import assembly  # noqa: PLC0415

        self._pid, self.hostname = os.getpid(), hostname
        self._shutdown_timeout = settings.shutdown_timeout
        parts = assembly.build(self.app, settings, hostname, in_process=in_process, spawns=spawns)
        self.store = parts.store
        if not self.store.shared:
            self._say(partial(logger.warning, _NO_REDIS))
        if hostname:
            # registers our remote control commands, in workers only
            from celery_argsize.worker import remote_control  # noqa: F401, PLC0415
        parts.start()
        self._assembly = parts
        self._attend(parts.recorder, parts.handoff)
        if parts.handoff.path is not None:
            os.environ[_HANDOFF_ENV] = parts.handoff.path
        self._listen(signals.worker_shutdown, self._on_worker_shutdown)
        atexit.register(self.stop)

    def _attend(self, recorder: Recorder, handoff: Handoff | PipeWriter) -> None:
        self._handoff, self._recorder = handoff, recorder
        signals.task_prerun.disconnect(dispatch_uid=self._uid)  # _on_eager
        self._listen(signals.task_prerun, recorder.on_task_prerun)
        self._listen(signals.worker_process_shutdown, recorder.on_child_exit)

    def stop(self, *, report: bool = True) -> None:
        """Write what is left, report, and stop measuring. Harmless when not started, and in a child."""
        parts = self._assembly
        if parts is None or self._pid != os.getpid():
            return
        self._assembly = self._handoff = self._recorder = None  # nobody hands over to what is closing
        atexit.unregister(self.stop)
        for signal in (signals.worker_shutdown, signals.task_prerun, signals.worker_process_shutdown):
            signal.disconnect(dispatch_uid=self._uid)
        left = 0
        try:
            left = parts.flusher.stop(self._shutdown_timeout)
        except Exception as exc:  # noqa: BLE001 - the worker must stop as it would
            FailureLog("could not stop as it should; what was not written yet may be lost").report(exc, logging.ERROR)
        self._stop_serving(parts)
        if report and self.hostname:
            self._report(parts)
        if left:
            logger.error(
                "celery_argsize: the figures of %d task runs could not be written within %g s and are lost",
                left,
                self._shutdown_timeout,
            )
        os.environ.pop(_HANDOFF_ENV, None)
        parts.handoff.hide()  # also where a thread that hangs keeps it open

    def _stop_serving(self, parts: Assembly) -> None:
        try:
            if parts.server is not None:
                parts.server.stop()
        except Exception as exc:  # noqa: BLE001 - as above
            FailureLog("the server of metrics could not stop as it should").report(exc)

    def _report(self, parts: Assembly) -> None:
        try:
            for line in parts.report(self.hostname):
                logger.warning("%s", line)
        except Exception as exc:  # noqa: BLE001 - the worker must stop as it would
            FailureLog("no report at shutdown").report(exc)


def _after_fork() -> None:
    for monitor in monitors.values():
        if isinstance(monitor, _Installed):
            monitor.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _runs_in_process(pool: Any) -> bool:
    modules = [base.__module__ for base in get_implementation(pool).__mro__]
    return any(f"celery.concurrency.{name}" in modules for name in _IN_PROCESS)
