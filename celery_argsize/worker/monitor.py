"""The monitor of one app in this process: its settings, its store, its recorder and flusher.

``install`` makes monitors. Remote control and the public functions
get them from ``installed``. Celery's command line imports this
module, so it imports nothing heavy.
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
    from celery_argsize.worker.install import InstalledMonitor
    from celery_argsize.worker.recorder import Recorder

#: Names of the remote control commands that a reset sends to workers.
HOLD: Final = "argsize_hold"
RELEASE: Final = "argsize_release"

#: The monitors of this process, by the id of their app.
monitors: dict[int, InstalledMonitor] = {}


def installed(app: Celery | None = None) -> Monitor | None:
    """The monitor of *app*. Without *app*, the only monitor in this process."""
    if app is not None:
        return monitors.get(id(bare(app)))
    return next(iter(monitors.values())) if len(monitors) == 1 else None


def bare(app: Any) -> Celery:
    """The app behind *app*, which may be a proxy such as ``celery.current_app``."""
    unwrap = getattr(app, "_get_current_object", None)
    return app if unwrap is None else unwrap()  # type: ignore[no-any-return]


class Monitor:
    """What one app has in this process. ``None`` where it has not started."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        #: The settings given to ``install``.
        self.overrides: dict[str, Any] = {}
        self.store: Store | None = None
        #: The worker's node name. Empty in a process that is no worker.
        self.hostname = ""
        self._assembly: Assembly | None = None
        self._recorder: Recorder | None = None
        self._pid = 0  # of the process with the flusher

    @property
    def settings(self) -> Settings:
        """The settings in force now. Raises ``ConfigError`` for a setting that cannot work."""
        from celery_argsize.settings import resolve  # noqa: PLC0415 - not for Celery's command line

        return resolve(self.overrides, self.app)

    @property
    def flusher(self) -> Flusher | None:
        """The flusher, in the process that writes the figures; elsewhere ``None``."""
        return self._assembly.flusher if self._assembly is not None and self._pid == os.getpid() else None

    @property
    def in_child(self) -> bool:
        """Whether this is a pool child of a worker that measures."""
        return self._recorder is not None and self._pid != os.getpid()

    def put(self, measurement: Measurement) -> bool:
        """Count *measurement* as a run in this process. ``False``: it does not measure."""
        if self._recorder is None:
            return False
        self._recorder.add(measurement)
        return True
