"""Wires one app to the rest: install() and uninstall(), and what starts and stops with a worker.

``install`` connects three signal receivers and does nothing else, so that it is free in a producer; what does the work
(``machinery``) is not even imported. The work begins at ``worker_init``, in the worker's main process, and ends at
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

from celery_argsize import config
from celery_argsize.errors import ArgsizeError
from celery_argsize.trouble import Trouble, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_argsize.config import Settings
    from celery_argsize.flusher import Flusher
    from celery_argsize.handoff import Handoff, PipeWriter
    from celery_argsize.machinery import Machinery
    from celery_argsize.measurement import Measurement
    from celery_argsize.recorder import Recorder
    from celery_argsize.stores.base import Store

__all__ = ["Monitor", "install", "installed", "uninstall"]

#: Tells a spawned child (a fresh interpreter, which inherits no pipe) where the pipe is.
_HANDOFF_ENV: Final = "_CELERY_ARGSIZE_HANDOFF"

#: Pools whose tasks run in the worker's main process.
_IN_PROCESS: Final = ("solo", "thread", "gevent", "eventlet")

_NO_REDIS: Final = (
    "celery_argsize: no Redis is configured, the figures of this worker are kept in its memory until it stops; "
    "set argsize_redis_url to keep them, and to see all workers together"
)

_monitors: dict[int, Monitor] = {}


def install(app: Celery, **settings: Any) -> Monitor:
    """Measure the arguments of every task that workers of *app* run.

    Call it where the app is made, so that every process that has the app has the monitor. Free outside a worker: no
    thread, no connection. Calling it again is harmless; settings of the later call win, until a worker has started.

    Raises:
        ConfigError: a setting that does not exist, or a value that cannot work.
    """
    app = _bare(app)
    config.check(settings)
    monitor = _monitors.get(id(app))
    if monitor is None:
        monitor = _monitors[id(app)] = Monitor(app)
        monitor.connect()
    monitor.overrides.update(settings)
    return monitor


def uninstall(app: Celery) -> None:
    """Undo ``install``; a worker that is running writes what it has and stops measuring. Harmless if not installed."""
    monitor = _monitors.pop(id(_bare(app)), None)
    if monitor is not None:
        monitor.stop(report=False)
        monitor.disconnect()


def installed(app: Celery | None = None) -> Monitor | None:
    """The monitor of *app*; without *app*, that of the only app that has one in this process."""
    if app is not None:
        return _monitors.get(id(_bare(app)))
    return next(iter(_monitors.values())) if len(_monitors) == 1 else None


def _bare(app: Any) -> Celery:
    """The app itself, where *app* is a proxy such as ``celery.current_app``."""
    unwrap = getattr(app, "_get_current_object", None)
    return app if unwrap is None else unwrap()  # type: ignore[no-any-return]


class Monitor:
    """What ``install`` gives: one app's monitor."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.overrides: dict[str, Any] = {}
        self._machinery: Machinery | None = None
        self.store: Store | None = None
        self._handoff: Handoff | PipeWriter | None = None
        self._recorder: Recorder | None = None
        self._pid = 0
        self.hostname = ""
        """The worker's node name while it runs; empty outside workers."""
        self._shutdown_timeout = 0.0
        self._starting = threading.Lock()

    @property
    def flusher(self) -> Flusher | None:
        """What writes the figures, in the process that does; a child has a dead copy of it."""
        return self._machinery.flusher if self._machinery is not None and self._pid == os.getpid() else None

    @property
    def settings(self) -> Settings:
        """The settings in force, worked out anew: the app may be configured after ``install``.

        Raises:
            ConfigError: a setting that does not exist, or a value that cannot work.
        """
        return config.resolve(self.overrides, self.app)

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
        if _bare(sender.app) is not self.app:
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
            self._say(partial(Trouble("could not start, and the worker runs without it").report, exc, logging.ERROR))

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
        app = _bare(current_app)
        if path is None or self._recorder is not None or app.main != self.app.main:
            return
        try:
            from celery_argsize import machinery  # noqa: PLC0415 - as in start()

            self._attend(*machinery.join(app, self.settings, path))
        except Exception as exc:  # noqa: BLE001 - the child must start
            Trouble("cannot measure in this process, which runs without it").report(exc, logging.ERROR)

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
            Trouble("cannot count eager tasks in this process").report(exc, logging.ERROR)
        signals.task_prerun.disconnect(dispatch_uid=self._uid)

    def after_fork(self) -> None:
        """In a child: leave what is the parent's alone. Where tasks ran in the parent itself, begin anew."""
        self._starting = threading.Lock()
        if self._machinery is not None and self._machinery.server is not None:
            self._machinery.server.abandon()
        if self._handoff is None or self._handoff.after_fork():
            return
        self._machinery = self.store = self._handoff = self._recorder = None
        signals.task_prerun.disconnect(dispatch_uid=self._uid)
        if not self.hostname:
            self._listen(signals.task_prerun, self._on_eager)

    def _on_worker_shutdown(self, sender: Any = None, **_: Any) -> None:
        if _bare(sender.app) is self.app:
            self.stop()

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self, settings: Settings, hostname: str, *, in_process: bool, spawns: bool = False) -> None:
        """Start measuring in this process (*in_process*), or in the children it will have."""
        if self.flusher is not None:
            return
        # Here and not at the top, for a producer's sake; before the first fork, and before there is a thread.
        from celery_argsize import machinery  # noqa: PLC0415

        self._pid, self.hostname = os.getpid(), hostname
        self._shutdown_timeout = settings.shutdown_timeout
        parts = machinery.build(self.app, settings, hostname, in_process=in_process, spawns=spawns)
        self.store = parts.store
        if not self.store.shared:
            self._say(partial(logger.warning, _NO_REDIS))
        if hostname:
            # registers our remote control commands, in workers only
            from celery_argsize import control, inspecting  # noqa: F401, PLC0415
        parts.start()
        self._machinery = parts
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
        parts = self._machinery
        if parts is None or self._pid != os.getpid():
            return
        self._machinery = self._handoff = self._recorder = None  # nobody hands over to what is closing
        atexit.unregister(self.stop)
        for signal in (signals.worker_shutdown, signals.task_prerun, signals.worker_process_shutdown):
            signal.disconnect(dispatch_uid=self._uid)
        left = 0
        try:
            left = parts.flusher.stop(self._shutdown_timeout)
        except Exception as exc:  # noqa: BLE001 - the worker must stop as it would
            Trouble("could not stop as it should; what was not written yet may be lost").report(exc, logging.ERROR)
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

    def _stop_serving(self, parts: Machinery) -> None:
        try:
            if parts.server is not None:
                parts.server.stop()
        except Exception as exc:  # noqa: BLE001 - as above
            Trouble("the server of metrics could not stop as it should").report(exc)

    def _report(self, parts: Machinery) -> None:
        try:
            for line in parts.report(self.hostname):
                logger.warning("%s", line)
        except Exception as exc:  # noqa: BLE001 - the worker must stop as it would
            Trouble("no report at shutdown").report(exc)

    # -- for the public functions ----------------------------------------------------------------------------------

    @property
    def in_child(self) -> bool:
        """Whether this is a pool child of a worker that measures."""
        return self._recorder is not None and self._pid != os.getpid()

    def put(self, measurement: Measurement) -> bool:
        """Hand over *measurement* as a task of this process would; whether this process measures at all."""
        if self._handoff is None:
            return False
        self._handoff.put(measurement)
        return True


def _after_fork() -> None:
    for monitor in _monitors.values():
        monitor.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _runs_in_process(pool: Any) -> bool:
    modules = [base.__module__ for base in get_implementation(pool).__mro__]
    return any(f"celery.concurrency.{name}" in modules for name in _IN_PROCESS)
