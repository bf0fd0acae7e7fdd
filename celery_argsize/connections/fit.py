"""Settings with which the connections of a Celery cluster fit into what a Redis takes, and what does where none do.

Pure: tries setups on ``connection_model``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.connections.model import GREEN, SHARED, Setup, items_of, totals

if TYPE_CHECKING:
    from collections.abc import Callable

#: Fewer than this cannot work in any pool. In a publishing pool of one, ``inspect`` and ``revoke`` wait for ever: they
#: hold a connection while they take another. In a redis-py pool of one, a task cannot await a result: the pub/sub
#: connection is kept, and a command needs one more. Nor can a channel take both tasks and broadcasts.
LEAST: Final = 2

#: What a redis-py pool is to have room for, in settings that fit: a ceiling that is never reached costs nothing.
_ROOMY: Final = 4


@dataclass(frozen=True, slots=True)
class FittingSettings:
    """Settings with which everything fits."""

    concurrency: int
    broker_pool_limit: int | None
    """``None``, as ``max_connections``: the messages are on no Redis."""
    max_connections: int | None
    """For ``broker_transport_options``."""
    redis_max_connections: int | None
    """``None``: the results are on no Redis."""
    result_backend_thread_safe: bool

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines of Python to paste where ``app`` is configured."""
        options = f'{{**(app.conf.broker_transport_options or {{}}), "max_connections": {self.max_connections}}}'
        return (
            f"app.conf.worker_concurrency = {self.concurrency}  # --concurrency on the command line wins",
            *([f"app.conf.broker_pool_limit = {self.broker_pool_limit}"] if self.broker_pool_limit else []),
            *([f"app.conf.broker_transport_options = {options}"] if self.max_connections else []),
            *([f"app.conf.redis_max_connections = {self.redis_max_connections}"] if self.redis_max_connections else []),
            *(["app.conf.result_backend_thread_safe = True"] if self.result_backend_thread_safe else []),
        )

    def to_json(self) -> dict[str, Any]:
        """These settings as JSON-able data, and as lines to paste."""
        return {
            "worker_concurrency": self.concurrency,
            "broker_pool_limit": self.broker_pool_limit,
            "broker_transport_options": {"max_connections": self.max_connections},
            "redis_max_connections": self.redis_max_connections,
            "result_backend_thread_safe": self.result_backend_thread_safe,
            "lines": list(self.lines),
        }


def fitting(setup: Setup, room: int) -> FittingSettings | None:
    """The settings that change least so that each Redis gets at most *room* connections; the concurrency goes last."""
    concurrency = min(setup.concurrency, largest_concurrency(setup, room))
    if not concurrency:
        return None
    for thread_safe in sorted({setup.thread_safe, setup.thread_safe or _shares(setup)}):
        tried = replace(setup, concurrency=concurrency, thread_safe=thread_safe)
        if limit := _pool_limit(tried, room):
            return _settings(replace(tried, pool_limit=limit))
    return None


def _pool_limit(setup: Setup, room: int) -> int:
    """The largest limit worth having with which *setup* fits; 0: none does."""
    least, most = _pool_limits(setup)
    limit = _largest(least, most, lambda n: _fits(replace(setup, pool_limit=n), room))
    return limit if limit >= least else 0


def largest_concurrency(setup: Setup, room: int) -> int:
    """The largest concurrency that fits into *room*, if all else is set to need the least; 0: none does."""
    # what is on no Redis at all is not bounded by one
    most = max(room, setup.concurrency)
    return _largest(1, most, lambda n: _fits(_least(setup, n), room))


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest number from *low* to *high* that *fits*, as all below it do; ``low - 1``: none does."""
    below, above = low - 1, high + 1
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below


def _settings(setup: Setup) -> FittingSettings:
    return FittingSettings(
        concurrency=setup.concurrency,
        broker_pool_limit=setup.pool_limit if setup.write else None,
        max_connections=max(_ROOMY, needed(setup)) if setup.read or setup.write else None,
        redis_max_connections=max(_ROOMY, needed_for_results(setup)) if setup.result else None,
        result_backend_thread_safe=setup.thread_safe,
    )


def needed(setup: Setup) -> int:
    """Connections in the largest pool of one channel: that which all greenlets of a worker acknowledge through."""
    return setup.concurrency + 2 if setup.pool in GREEN else LEAST


def needed_for_results(setup: Setup) -> int:
    """Connections in the largest pool of one result backend."""
    users = max(setup.at_once, setup.threads) if setup.thread_safe else 1
    return users + 2 if users > 1 else LEAST


def remedies(setup: Setup, max_clients: int, reserve: int) -> list[str]:
    """What would do where no settings fit, each by itself."""
    room = max_clients - reserve
    least = _least(setup, 1)
    counts = totals(items_of(least)).values()
    if None in counts:
        return ["Celery 5.7 or later, with result_backend_thread_safe = True", "another pool", "result_backend = None"]
    most = max(filter(None, counts))
    found = [f"concurrency 1, and a Redis that takes {most + reserve} clients instead of {max_clients}"]
    if _fits(replace(least, gossip=False), room):
        found.append("concurrency 1, and --without-gossip on all workers")
    if _fits(replace(least, inspectors=0), room):
        found.append("concurrency 1, and no celery inspect and no doctor while all else runs")
    workers = _largest(1, setup.workers - 1, lambda n: _fits(replace(least, workers=n), room))
    if workers >= 1:
        found.append(f"concurrency 1, and {workers} workers instead of {setup.workers}")
    producers = _largest(0, setup.producers - 1, lambda n: _fits(replace(least, producers=n), room))
    if producers >= 0:
        found.append(f"concurrency 1, and {producers} producers instead of {setup.producers}")
    return found


def _fits(setup: Setup, room: int) -> bool:
    return all(count is not None and count <= room for count in totals(items_of(setup)).values())


def _least(setup: Setup, concurrency: int) -> Setup:
    """*setup*, but with the settings that need the fewest connections."""
    lean = replace(setup, concurrency=concurrency, thread_safe=setup.thread_safe or _shares(setup))
    return replace(lean, pool_limit=_pool_limits(lean)[0])


def _shares(setup: Setup) -> bool:
    """Whether several threads of one process use results, so that one backend for all of them saves connections."""
    return setup.shareable and (setup.pool in SHARED or setup.threads > 1)


def _pool_limits(setup: Setup) -> tuple[int, int]:
    """The limits to try, from the least with which no thread waits for ever to one with which none waits."""
    users = max(setup.threads, setup.at_once)
    if setup.control:
        return users + 1, 2 * users + 1
    return LEAST, max(users + (setup.pool in SHARED), LEAST)
