"""Several Beats on this machine that were started with the same ``-A``: are they of one app, at one database? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.host_facts import CeleryProcess

__all__ = ["at_database", "likeness"]


def at_database(facts: Facts, beat: CeleryProcess) -> bool | None:
    """Whether *beat* sends to the very database that the workers read, not just to its port; ``None``: not known."""
    found, host = facts.workers.found, facts.host.found
    if found is None or host is None:
        return None
    if beat.pid in {node.pid for node in found.nodes if node.hostname == host.hostname}:
        return True  # a worker with -B, which answers there
    local = found.local.get(beat.pid)
    # a Beat that has sent nothing yet has no connection at all
    return False if local and local.ports and local.elsewhere(found.port) else found.at_database(beat.pid)


def likeness(facts: Facts, beats: Sequence[CeleryProcess]) -> Literal["same", "maybe", "apart"]:
    """``same``: two of *beats* are known to be at the database, and were started in one folder.

    ``apart``: each was started in a folder of its own, and no two are known to be at the database.
    """
    local = facts.workers.found.local if facts.workers.found else {}
    folders = [local[beat.pid].folder if beat.pid in local else "" for beat in beats]
    known = [folder for beat, folder in zip(beats, folders, strict=True) if at_database(facts, beat)]
    seen = [folder for folder in known if folder]
    if len(seen) > len({*seen}):
        return "same"
    return "maybe" if len(known) > 1 or "" in folders or len(folders) > len({*folders}) else "apart"
