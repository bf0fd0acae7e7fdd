"""What ``celery argsize watch`` shows: figures, and how they change.

Pure: makes a screen for rich, or lines of text for a log.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from celery_argsize.figures.summary import Summary, TaskSummary, only, summarize
from celery_argsize.words import counted, printable, shorten, when, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

    from celery_argsize.figures.counters import Figures

#: Seconds that a rate covers. Workers write each second: a
#: shorter rate would flicker.
_RATE_SECONDS: Final = 10.0
#: Seconds that the trend and the new truncated runs cover.
_TREND_SECONDS: Final = 60.0
#: The least trend that is colored.
_STEEP: Final = 0.1
#: Columns left out on a narrow terminal, in this order,
#: until names have _NAME_WIDTH.
_LEFT_OUT: Final = ("p50 <=", "part", "p95 <=", "trend", "truncated", "rate/s", "max")
_NAME_WIDTH: Final = 16
_LEGEND: Final = "Sizes: characters of the larger part. rate: 10 s; trend, (+n): last minute. Ctrl-C ends."


class _Moment(NamedTuple):
    time: float
    period: tuple[object, ...]
    """The app and its ``since``, which changes at a reset;
    empty for several apps."""
    totals: dict[str, Counter[str]]
    """By task name: see ``_totals``."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task, and how it changed."""

    task: TaskSummary
    part: str
    """The larger part, whose sizes and trend are shown."""
    new: Counter[str]
    """``runs`` and ``truncated`` runs since the last view."""
    lately: Counter[str]
    """The same counts for the last minute."""
    rate: float | None
    """Runs per second, over ten seconds or the last
    interval if that is longer."""
    trend: float | None
    """Mean size of the last minute / mean since the reset, less 1."""


class History:
    """The figures of the last minute. A reset of an app empties it."""

    def __init__(self, where: str = "", name_filter: str = "") -> None:
        self._where, self._name_filter = where, name_filter
        self._moments: list[_Moment] = []

    def view(self, figures: Iterable[Figures], now: float) -> View:
        """The screen for *figures* read at *now* (seconds of any clock)."""
        summary = only(summarize(*figures), lambda name: self._name_filter in name)
        return View(self._where, summary, self.add(summary, now), self._name_filter)

    def add(self, summary: Summary, now: float) -> list[Row]:
        """Add *summary*, read at *now*. Returns a row for each task."""
        # With several apps, ``since`` is that of the oldest:
        # it does not show each reset.
        period = (summary.apps, summary.since) if len(summary.apps) == 1 else ()
        moment = _Moment(now, period, {task.name: _totals(task) for task in summary.tasks})
        before = self._moments[-1] if self._moments else moment
        for name, totals in [*before.totals.items()]:
            if before.period != period or not totals <= moment.totals.get(name, Counter()):  # reset
                for earlier in self._moments:
                    earlier.totals.pop(name, None)
        self._moments.append(moment)
        recent, minute = self._ago(_RATE_SECONDS), self._ago(_TREND_SECONDS)
        self._moments = [kept for kept in self._moments if kept.time >= minute.time]
        return [_row(task, moment, before, recent, minute) for task in summary.tasks]

    def _ago(self, seconds: float) -> _Moment:
        """The newest moment at least *seconds* ago, else the oldest."""
        latest = self._moments[-1].time - seconds
        return next((moment for moment in reversed(self._moments) if moment.time <= latest), self._moments[0])


def _row(task: TaskSummary, now: _Moment, before: _Moment, recent: _Moment, minute: _Moment) -> Row:
    totals, nothing = now.totals[task.name], Counter[str]()
    new, newest, lately = (totals - base.totals.get(task.name, nothing) for base in (before, recent, minute))
    part = "args" if task.args.max >= task.kwargs.max else "kwargs"
    mean = getattr(task, part).mean
    rate = newest["runs"] / (now.time - recent.time) if now.time > recent.time else None
    trend = lately[f"{part}.chars"] / lately[part] / mean - 1 if lately[part] and mean else None
    return Row(task, part, new, lately, rate, trend)


def _totals(task: TaskSummary) -> Counter[str]:
    """Runs, truncated runs, and of each part the measured ones and their characters."""
    totals = Counter(runs=task.count, truncated=task.truncated)
    for name, part in (("args", task.args), ("kwargs", task.kwargs)):
        totals.update({name: part.count, f"{name}.chars": round(part.mean * part.count)})
    return totals


@dataclass(frozen=True, slots=True)
class View:
    """The screen, which rich fits to the terminal."""

    where: str
    """The Redis, without secrets."""
    summary: Summary
    rows: Sequence[Row]
    name_filter: str = ""
    """Text in the names of the tasks shown."""
    stale: str = ""
    """Why the figures are old; empty if they are new."""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The lines from top to bottom."""
        columns, lines = options.max_width, options.height or options.size.height
        head = [_line(self._title(), "bold"), _line(self._headline())]
        if self.stale:
            head.append(_line(f"OLD FIGURES. {printable(self.stale)}", "bold red"))
        # not rows: an empty line, names of columns, the line below them
        room = lines - len(head) - 3
        if not self.rows:
            nothing = f"Of tasks with {self.name_filter!r} in their names, nothing" if self.name_filter else "Nothing"
            text = f"{nothing} has been measured yet. Waiting for tasks to run. Ctrl-C ends."
            yield Group(*head, "", _line(text))
        elif room > 0:
            hidden = self.rows[room:]
            ran = _rates(hidden, ", with {} runs/s in all")
            below = f"… and {len(hidden):,} more{ran}; --task shows some" if hidden else _LEGEND
            yield Group(*head, "", _table(self.rows[:room], columns), _line(below, "dim"))
        else:  # a very low terminal
            yield Group(*head[:-1], _table(self.rows[: max(lines - len(head), 1)], columns))

    def changes(self, now: float) -> list[str]:
        """A line for each task that ran since the last view. *now* is a Unix time."""
        stamp = when(now).replace(" UTC", "Z").replace(" ", "T")
        return [] if self.stale else [f"{stamp} {_change(row)}" for row in self.rows if row.new["runs"]]

    def _title(self) -> str:
        apps = ", ".join(map(printable, self.summary.apps)) or "no app"
        since = f", since {when(self.summary.since)}" if self.summary.since is not None else ""
        tasks = f", tasks with {self.name_filter!r} in their names" if self.name_filter else ""
        return f"{apps} at {self.where}{tasks}{since}"

    def _headline(self) -> str:
        summary, new = self.summary, sum(row.lately["truncated"] for row in self.rows)
        runs = counted(summary.total_tasks, "run") + _rates(self.rows, ", {}/s")
        truncated = f"{summary.truncated_tasks:,}{f' (+{new:,})' if new else ''} truncated"
        newest = f"; newest: {when(summary.updated)}" if summary.updated is not None else ""
        return f"{runs}; {truncated}{newest}"


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _rates(rows: Sequence[Row], text: str) -> str:
    """*text* with the sum of the rates in it; empty while no rate is known."""
    rates = [row.rate for row in rows if row.rate is not None]
    return text.format(_rate(sum(rates))) if rates else ""


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.1f}" if round(rate, 1) or not rate else f"{rate:.1g}"


def _trend(trend: float | None) -> str:
    if trend is None:
        return "-"
    percent = round(trend * 100)
    return f"{percent:+,} %" if percent else "0 %"


def _change(row: Row) -> str:
    """*row* as a line for programs: no commas in numbers."""
    sizes, name = getattr(row.task, row.part), printable(row.task.name)
    rate, trend = _rate(row.rate).replace(",", ""), _trend(row.trend).replace(",", "").replace(" ", "")
    return (
        f"runs={row.new['runs']} rate={rate} part={row.part} p50={sizes.p50} p95={sizes.p95} max={sizes.max} "
        f"truncated={row.task.truncated} new_truncated={row.new['truncated']} trend={trend} task={name}"
    )


def _cells(row: Row) -> dict[str, Text]:
    """The cells of *row*, by column."""
    sizes, truncated, new = getattr(row.task, row.part), row.task.truncated, row.lately["truncated"]
    trend = _trend(row.trend)
    arrow = "" if row.trend is None else {"+": "↑ ", "-": "↓ "}.get(trend[0], "→ ")
    steep = row.trend is not None and row.trend >= _STEEP
    style = "bold red" if new else "yellow" if truncated else ""
    return {
        "rate/s": Text(_rate(row.rate)),
        "part": Text(row.part),
        "p50 <=": Text(f"{sizes.p50:,}"),
        "p95 <=": Text(f"{sizes.p95:,}"),
        "max": Text(f"{sizes.max:,}"),
        "truncated": Text(f"{truncated:,}{f' (+{new:,})' if new else ''}", style),
        "trend": Text(arrow + trend, "yellow" if steep else ""),
    }


def _table(rows: Sequence[Row], columns: int) -> Table:
    """A table of *rows*, *columns* wide. Only names are shortened."""
    cells, tasks = [_cells(row) for row in rows], [printable(row.task.name) for row in rows]
    widths = {name: 2 + max([len(name), *(texts[name].cell_len for texts in cells)]) for name in cells[0]}
    longest = max(map(width, ["task", *tasks]))
    for name in _LEFT_OUT:
        if min(longest, _NAME_WIDTH) + sum(widths.values()) <= columns:
            break
        del widths[name]
    room = min(longest, columns - sum(widths.values()))
    table = Table(box=None, padding=0, header_style="bold")
    table.add_column("task", width=room, no_wrap=True)
    for name, places in widths.items():
        table.add_column(name, width=places, justify="right", no_wrap=True)
    for task, texts in zip(tasks, cells, strict=True):
        table.add_row(Text(shorten(task, room)), *(texts[name] for name in widths))
    return table
