"""Workers of the app that are there, and do not answer. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app_words import is_of_app

if TYPE_CHECKING:
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.host_facts import CeleryProcess

__all__ = ["is_starting", "unheard", "unheard_names"]

#: Seconds after its start in which a worker need not answer: an app may take long to import.
STARTING_SECONDS: Final = 60


def is_starting(process: CeleryProcess) -> bool:
    """Whether it is that young."""
    return time.time() - process.created <= STARTING_SECONDS


def unheard(facts: Facts) -> list[CeleryProcess]:
    """Workers of the app on this machine, at its broker, that no answering node is."""
    found, host = facts.workers.get(), facts.host.found
    if host is None or found.twice:  # of two with one name, one process is known only
        return []
    answering = {node.pid for node in found.nodes}
    parents = {process.ppid for process in host.processes if process.kind == "worker"}
    return [
        process
        for process in host.processes
        if process.kind == "worker" and {process.pid, process.ppid}.isdisjoint(answering) and process.pid not in parents
        if is_of_app(facts.app, process.app) and _at_broker(facts, process)
    ]


def _at_broker(facts: Facts, process: CeleryProcess) -> bool:
    """Not one that ended meanwhile, nor of another installation of the app, which has a broker of its own."""
    found = facts.workers.get()
    local = found.local.get(process.pid)
    if local is None:
        return False
    return not local.elsewhere(found.port) or (is_starting(process) and not local.ports)


def unheard_names(facts: Facts) -> list[str]:
    """All of them, for people: by their node's name, or by their pid."""
    return [*facts.workers.get().silent, *(f"the worker with pid {process.pid}" for process in unheard(facts))]
