"""What ``celery argsize watch`` shows: how figures that are read again and again change, as rows and as text.

Pure: summaries and their times go in, lines come out. Reading, waiting and painting are the command's business.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.words import cut, pad, printable, shorten, when, width

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from celery_argsize.figures.summary import PartSummary, Summary, TaskSummary

if TYPE_CHECKING:
    #: Gives a text the looks of its kind: "title", "bad", "warn" or "dim".
    Paint: TypeAlias = Callable[[str, str], str]

#: Seconds that a rate is about. Workers write once a second: two seconds would show their rhythm, not the tasks'.
RATE_SECONDS: Final = 10.0
#: Seconds that the trend, and what was newly truncated, are about.
TREND_SECONDS: Final = 60.0

#: A trend from here on is painted.
STEEP: Final = 0.1

#: Columns that go, in this order, where the terminal is too narrow for a name of this many places beside them.
_GOING: Final = ("p50 <=", "part", "p95 <=", "trend", "truncated", "rate/s", "max")
_NAME_PLACES: Final = 16


class _Totals(NamedTuple):
    """What only ever rises, of one task, until it is reset."""

    runs: int = 0
    truncated: int = 0
    args: int = 0
    args_chars: int = 0
    kwargs: int = 0
    kwargs_chars: int = 0

    def since(self, before: _Totals) -> _Totals:
        return _Totals(*(new - old for new, old in zip(self, before, strict=True)))


class _Moment(NamedTuple):
    time: float
    period: tuple[object, ...]
    """What changes when all figures of an app are reset."""
    totals: dict[str, _Totals]


@dataclass(frozen=True, slots=True)
class Row:
    """One task. Sizes are those of its larger part, in characters. ``None`` is not known yet."""

    name: str
    part: str
    """``args`` or ``kwargs``: the one with the larger maximum."""
    p50: int
    p95: int
    max: int
    truncated: int
    """Runs with a truncated part."""
    new_runs: int
    """Runs since the figures were read before."""
    new_truncated: int
    rate: float | None
    """Runs a second, of the last ten seconds, or since they were read before where that is longer."""
    truncated_lately: int
    """Runs with a truncated part, of the last minute."""
    trend: float | None
    """By what share the mean of the last minute is above that of all since the reset; ``None`` if nothing ran."""


class History:
    """The figures of the last minute, and how they changed. A reset in between is taken for a new beginning."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()

    def add(self, summary: Summary, now: float) -> list[Row]:
        """Take in *summary*, read at *now*, in seconds of any clock that only rises; the rows of its tasks."""
        # Of several apps, ``since`` is the oldest's, and says little of the others.
        period = (summary.apps, summary.since) if len(summary.apps) == 1 else ()
        moment = _Moment(now, period, {task.name: _totals(task) for task in summary.tasks})
        if self._moments:
            self._forget(self._moments[-1], moment)
        self._moments.append(moment)
        while len(self._moments) > 2 and self._moments[1].time <= now - TREND_SECONDS:  # noqa: PLR2004 - now and before
            self._moments.popleft()
        return [self._row(task) for task in summary.tasks]

    def _forget(self, before: _Moment, now: _Moment) -> None:
        """Take what was reset as never having been."""
        anew = before.period != now.period
        for name, old in before.totals.copy().items():
            if anew or min(now.totals.get(name, _Totals()).since(old)) < 0:
                for moment in self._moments:
                    moment.totals.pop(name, None)

    def _row(self, task: TaskSummary) -> Row:
        part, sizes = _larger(task)
        now = self._moments[-1]
        known = len(self._moments) > 1
        fresh = self._since(task.name, self._moments[-2] if known else now)
        lately = self._base(TREND_SECONDS)
        base = self._base(RATE_SECONDS)
        recent = self._since(task.name, lately)
        return Row(
            name=printable(task.name),
            part=part,
            p50=sizes.p50,
            p95=sizes.p95,
            max=sizes.max,
            truncated=task.truncated,
            new_runs=fresh.runs,
            new_truncated=fresh.truncated,
            rate=self._since(task.name, base).runs / (now.time - base.time) if now.time > base.time else None,
            truncated_lately=recent.truncated,
            trend=_trend(getattr(recent, part), getattr(recent, f"{part}_chars"), sizes.mean),
        )

    def _base(self, seconds: float) -> _Moment:
        """The newest moment at least *seconds* ago; the oldest where there is none."""
        now = self._moments[-1].time
        old = (moment for moment in reversed(self._moments) if moment.time <= now - seconds)
        return next(old, self._moments[0])

    def _since(self, name: str, base: _Moment) -> _Totals:
        return self._moments[-1].totals[name].since(base.totals.get(name, _Totals()))


def _totals(task: TaskSummary) -> _Totals:
    sums = (number for part in (task.args, task.kwargs) for number in (part.count, round(part.mean * part.count)))
    return _Totals(task.count, task.truncated, *sums)


def _larger(task: TaskSummary) -> tuple[str, PartSummary]:
    return ("args", task.args) if task.args.max >= task.kwargs.max else ("kwargs", task.kwargs)


def _trend(count: int, chars: int, mean: float) -> float | None:
    return chars / count / mean - 1 if count and mean else None


@dataclass(frozen=True, slots=True)
class View:
    """All that the screen shows."""

    where: str
    """The Redis, without secrets."""
    summary: Summary
    rows: Sequence[Row]
    wanted: str = ""
    """What the names contain; empty for any."""
    trouble: str = ""
    """Why there are no newer figures; empty if these are new."""


def screen(view: View, columns: int, lines: int, paint: Paint = lambda text, _: text) -> list[str]:
    """*view* as at most *lines* lines of at most *columns* places, not counting what *paint* adds to a text."""
    head = [paint(cut(_title(view), columns), "title"), cut(_totals_line(view), columns)]
    if view.trouble:
        head.append(paint(cut(f"OLD FIGURES. {printable(view.trouble)}", columns), "bad"))
    if not view.rows:
        return [*head, "", cut(_nothing(view), columns)][:lines]
    legend = "Sizes: characters of the larger part. rate: 10 s; trend, (+n): last minute. Ctrl-C ends."
    room = max(lines - len(head) - 3, 0)  # an empty line, the names of the columns, and what is below them
    if not room:  # a very low terminal: what it is all about, and nothing else
        return [*head[:-1], *_table(view.rows[: max(lines - len(head), 1)], columns, paint)][: max(lines, 1)]
    below = cut(_hidden(view.rows[room:]) or legend, columns)
    return [*head, "", *_table(view.rows[:room], columns, paint), paint(below, "dim")]


def _title(view: View) -> str:
    apps = ", ".join(map(printable, view.summary.apps)) or "no app"
    since = f", since {when(view.summary.since)}" if view.summary.since is not None else ""
    only = f", tasks with {view.wanted!r} in their names" if view.wanted else ""
    return f"{apps} at {view.where}{only}{since}"


def _totals_line(view: View) -> str:
    summary = view.summary
    newest = f"; newest: {when(summary.updated)}" if summary.updated is not None else ""
    new = sum(row.truncated_lately for row in view.rows)
    truncated = f"{summary.truncated_tasks:,}{f' (+{new:,})' if new else ''} truncated"
    rate = _rates(view.rows)
    runs = "1 run" if summary.total_tasks == 1 else f"{summary.total_tasks:,} runs"
    return f"{runs}{f', {_rate(rate)}/s' if rate is not None else ''}; {truncated}{newest}"


def _nothing(view: View) -> str:
    what = f"Of tasks with {view.wanted!r} in their names, nothing" if view.wanted else "Nothing"
    return f"{what} has been measured yet. Waiting for tasks to run. Ctrl-C ends."


def _hidden(rows: Sequence[Row]) -> str:
    """What there was no room for."""
    rate = _rates(rows)
    ran = f", with {_rate(rate)} runs/s in all" if rate is not None else ""
    return f"… and {len(rows):,} more{ran}; --task shows some" if rows else ""


def _rates(rows: Sequence[Row]) -> float | None:
    known = [row.rate for row in rows if row.rate is not None]
    return sum(known) if known else None


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.1f}" if round(rate, 1) or not rate else f"{rate:.1g}"


def _percent(trend: float | None) -> str:
    if trend is None:
        return "-"
    percent = round(trend * 100)
    return f"{percent:+,} %" if percent else "0 %"


def _arrow(trend: float | None) -> str:
    percent = _percent(trend)
    return percent if trend is None else {"-": "↓ ", "+": "↑ "}.get(percent[0], "→ ") + percent


def _cells(row: Row) -> dict[str, tuple[str, str]]:
    """By the name of the column: a text and its kind."""
    new = f" (+{row.truncated_lately:,})" if row.truncated_lately else ""
    kind = "bad" if new else "warn" if row.truncated else ""
    return {
        "rate/s": (_rate(row.rate), ""),
        "part": (row.part, ""),
        "p50 <=": (f"{row.p50:,}", ""),
        "p95 <=": (f"{row.p95:,}", ""),
        "max": (f"{row.max:,}", ""),
        "truncated": (f"{row.truncated:,}{new}", kind),
        "trend": (_arrow(row.trend), "warn" if row.trend is not None and row.trend >= STEEP else ""),
    }


def _table(rows: Sequence[Row], columns: int, paint: Paint) -> list[str]:
    cells = [_cells(row) for row in rows]
    names = ("rate/s", "part", "p50 <=", "p95 <=", "max", "truncated", "trend")
    widths = {name: max([width(name), *(width(row[name][0]) for row in cells)]) for name in names}
    wanted = max([width("task"), *(width(row.name) for row in rows)])
    for going in _GOING:
        if min(wanted, _NAME_PLACES) + sum(places + 2 for places in widths.values()) <= columns:
            break
        del widths[going]
    room = max(min(wanted, columns - sum(places + 2 for places in widths.values())), 0)
    head = [pad(cut("task", room), room), *(pad(name, places, right=True) for name, places in widths.items())]
    lines = [paint("  ".join(head), "title")]
    for row, line in zip(rows, cells, strict=True):
        shown = [pad(shorten(row.name, room), room)]
        for name, places in widths.items():
            text, kind = line[name]
            shown.append(paint(pad(text, places, right=True), kind) if kind else pad(text, places, right=True))
        lines.append("  ".join(shown))
    return lines


def changes(rows: Sequence[Row], now: float) -> list[str]:
    """A line for each task that ran since the figures were read before; *now* in seconds since the epoch."""
    stamp = when(now).replace(" UTC", "Z").replace(" ", "T")
    return [f"{stamp} {_change(row)} task={row.name}" for row in rows if row.new_runs]


def _change(row: Row) -> str:
    # No separators between thousands: programs read these.
    figures = {
        "runs": row.new_runs,
        "rate": _rate(row.rate).replace(",", ""),
        "part": row.part,
        "p50": row.p50,
        "p95": row.p95,
        "max": row.max,
        "truncated": row.truncated,
        "new_truncated": row.new_truncated,
        "trend": _percent(row.trend).replace(",", "").replace(" ", ""),
    }
    return " ".join(f"{name}={value}" for name, value in figures.items())
