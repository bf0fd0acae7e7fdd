"""What is known of one app that is measured: its settings, its store, and what writes in this process.

``install`` makes and starts monitors; remote control and the public functions look theirs up with ``installed``.
Celery's command line imports this module at every start, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.measuring.measurement import Measurement
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.assembly import Assembly
    from celery_argsize.worker.flusher import Flusher
    from celery_argsize.worker.handoff import Handoff, PipeWriter
    from celery_argsize.worker.recorder import Recorder

#: Names of the remote control commands that a reset sends to workers.
HOLD: Final = "argsize_hold"
RELEASE: Final = "argsize_release"

#: Monitors of this process by the id of their app.
monitors: dict[int, Monitor] = {}


def installed(app: Celery | None = None) -> Monitor | None:
    """The monitor of *app*; without *app*, that of the only app that has one in this process."""
    if app is not None:
        return monitors.get(id(bare(app)))
    return next(iter(monitors.values())) if len(monitors) == 1 else None


def bare(app: Any) -> Celery:
    """The app itself, where *app* is a proxy such as ``celery.current_app``."""
    unwrap = getattr(app, "_get_current_object", None)
    return app if unwrap is None else unwrap()  # type: ignore[no-any-return]


class Monitor:
    """The state of one app's monitor in this process."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.overrides: dict[str, Any] = {}
        """Settings given to ``install``."""
        self.store: Store | None = None
        self.hostname = ""
        """The worker's node name while it runs; empty outside workers."""
        self._assembly: Assembly | None = None
        self._handoff: Handoff | PipeWriter | None = None
        self._recorder: Recorder | None = None
        self._pid = 0
        """The process that started measuring; its children have a copy of this object."""

    @property
    def settings(self) -> Settings:
        """The settings in force, worked out anew: the app may be configured after ``install``.

        Raises:
            ConfigError: a setting that does not exist, or a value that cannot work.
        """
        from celery_argsize.settings import resolve  # noqa: PLC0415 - see the top

        return resolve(self.overrides, self.app)

    @property
    def flusher(self) -> Flusher | None:
        """What writes the figures, in the process that does; ``None`` in its children and elsewhere."""
        return self._assembly.flusher if self._assembly is not None and self._pid == os.getpid() else None

    @property
    def in_child(self) -> bool:
        """Whether this is a pool child of a worker that measures."""
        return self._recorder is not None and self._pid != os.getpid()

    def put(self, measurement: Measurement) -> bool:
        """Count *measurement* as a task of this process would be; whether this process measures at all."""
        if self._handoff is None:
            return False
        self._handoff.put(measurement)
        return True
