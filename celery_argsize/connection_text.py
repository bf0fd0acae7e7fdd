"""A connection budget → text. Nothing is printed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_argsize.connection_fit import remedies
from celery_argsize.table import pad, width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.connection_model import ConnectionItem
    from celery_argsize.connections import ConnectionBudget

__all__ = ["budget_text"]


def budget_text(budget: ConnectionBudget) -> str:
    """What is counted, the verdict for each Redis, and what to paste."""
    setup = budget.setup
    workers = f"{setup.workers} worker{'s' if setup.workers > 1 else ''}"
    lines = [f"Redis connections at most, for {workers} ({setup.pool}, concurrency {setup.concurrency}):", ""]
    lines += _table(budget.items) or ["  none: nothing here uses a Redis"]
    lines += ["", *(_verdict(server, count, budget) for server, count in budget.servers.items())]
    lines += [f"Note: {note}." for note in budget.notes]
    return "\n".join([*lines, *_what_fits(budget)])


def _table(items: tuple[ConnectionItem, ...]) -> list[str]:
    rows = [(item.who, item.what, *_numbers(item), item.server) for item in items]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    numbers = (False, False, True, True, True, False)
    lines = (
        "  ".join(pad(cell, places, right=right) for cell, places, right in zip(row, widths, numbers, strict=True))
        for row in rows
    )
    return [f"  {line}".rstrip() for line in lines]


def _numbers(item: ConnectionItem) -> tuple[str, str, str]:
    return ("unbounded", "", "") if item.each is None else (f"{item.each}", f"x {item.times}", f"= {item.most}")


def _verdict(server: str, count: int | None, budget: ConnectionBudget) -> str:
    takes = f"{budget.max_clients} clients, {budget.reserve} of them kept free"
    if count is None:
        return f"{server}: unbounded ({takes}): does not fit"
    over = count + budget.reserve - budget.max_clients
    return f"{server}: {count} at most ({takes}): " + (f"{over} too many" if over > 0 else "fits")


def _what_fits(budget: ConnectionBudget) -> Iterator[str]:
    if not budget.items:
        return
    yield ""
    if budget.settings is None:
        yield "Nothing fits, not even concurrency 1. What would, each by itself:"
        yield from (f"  {text}" for text in remedies(budget.setup, budget.max_clients, budget.reserve))
        return
    yield f"Settings that fit (the largest concurrency that does is {budget.largest_concurrency}):"
    yield from (f"  {line}" for line in budget.settings.lines)
