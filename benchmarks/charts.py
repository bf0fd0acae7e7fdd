"""Draws a ``harness.Chart`` as an SVG file. Needs matplotlib, which the extra ``bench`` installs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Chart

__all__ = ["draw"]

COLORS: Final = ["#1f6fb2", "#c77700", "#2f7d4f", "#b3362c", "#6b4c9a", "#5f6b73", "#0f8b8d", "#a0568c", "#7a6a1f"]
GRAY: Final = "#666666"
#: Keep texts as texts instead of outlines, and make the same file from the same figures.
STYLE: Final[Any] = {"svg.fonttype": "none", "svg.hashsalt": "celery_argsize", "font.size": 10.5}


def draw(chart: Chart, path: Path) -> None:
    """Write *chart* to the SVG file *path*."""
    mpl.rcParams.update(STYLE)
    count = sum(map(len, chart.series.values()))
    figure = Figure(figsize=(9, 1.8 + 0.32 * count if chart.bars else 4.6), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(chart.title, loc="left", fontweight="bold")
    if "x" in chart.log:
        axes.set_xscale("log")
    if "y" in chart.log:
        axes.set_yscale("log")
    (_bars if chart.bars else _lines)(axes, chart)
    axes.set_xlabel(chart.x, color=GRAY)
    axes.set_ylabel(chart.y, color=GRAY)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _bars(axes: Any, chart: Chart) -> None:
    labels = list(dict.fromkeys(label for points in chart.series.values() for label, _ in points))
    several = len(chart.series) > 1
    height = 0.8 / len(chart.series)
    for number, (name, points) in enumerate(chart.series.items()):
        places = [labels.index(label) + (number - (len(chart.series) - 1) / 2) * height for label, _ in points]
        bars = axes.barh(places, [value for _, value in points], height * 0.92, color=COLORS[number], label=name)
        axes.bar_label(bars, fmt=lambda value: f"{value:,.3g}", padding=3, fontsize=9, color=GRAY)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    if chart.limit is not None:
        axes.axvline(chart.limit, color="#b3362c", linewidth=1, linestyle=(0, (4, 3)), label="target")
    if several or chart.limit is not None:
        axes.figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5)


def _lines(axes: Any, chart: Chart) -> None:
    for number, (name, points) in enumerate(chart.series.items()):
        axes.plot(*zip(*points, strict=True), color=COLORS[number % len(COLORS)], marker="o", markersize=4, label=name)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    if chart.limit is not None:
        axes.axhline(chart.limit, color="#b3362c", linewidth=1, linestyle=(0, (4, 3)), label="target")
    axes.legend(frameon=False, fontsize=9)
