"""Draws docs/images/publish-cost.svg: what Celery's saferepr costs a publish, against the limit that it is given.

Needs matplotlib, which is no part of the development tools: ``pip install matplotlib``. ``make bench-advice`` runs it
where that is installed. Takes about a minute, most of it for the tiny dicts.
"""

from __future__ import annotations

import platform
import time
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from arguments import KB, MB, SHAPES, label
from celery.utils.saferepr import saferepr

from celery_argsize.advice.advice import TIERS
from celery_argsize.advice.brokers import broker_of

if TYPE_CHECKING:
    from collections.abc import Mapping

PICTURE: Final = Path(__file__).resolve().parent.parent / "docs" / "images" / "publish-cost.svg"

#: Characters: 1 KB, Celery's default, to 2 MB, the guide's last tier.
LIMITS: Final = [KB << step for step in range(12)]
#: Seconds. The first time over it is the last for that shape.
ENOUGH: Final = 10.0
#: Times under so many seconds are taken so often, and the best counts.
STEADY: Final = 0.2
ROUNDS: Final = 3

#: About 1 MB of JSON each.
ARGS: Final[Mapping[str, tuple[Any, ...]]] = {
    "tiny dicts": ([{"a": number % 10} for number in range(MB // 8)],),
    "records of 6 keys": SHAPES["records"](MB),
    "ids": SHAPES["ids"](MB),
    "one text": SHAPES["one long text"](MB),
}
COLORS: Final = {"tiny dicts": "#b3362c", "records of 6 keys": "#c77700", "ids": "#1f6fb2", "one text": "#2f7d4f"}
#: Where the line is named: the limit, and points to the right and up from there.
LABELS: Final = {
    "tiny dicts": (8192, (-8, 8), "right"),
    "records of 6 keys": (8192, (8, -15), "left"),
    "ids": (2048, (0, 8), "center"),
    "one text": (16384, (-6, 9), "right"),
}
GRAY: Final = "#666666"
#: Behind limits that a frame does not hold.
SHADE: Final = "#f4efe6"


def cost(args: tuple[Any, ...], limit: int) -> float:
    """Seconds of this thread that one repr takes."""
    times: list[float] = []
    while not times or (len(times) < ROUNDS and times[0] < STEADY):
        began = time.thread_time()
        saferepr(args, limit)
        times.append(time.thread_time() - began)
    return min(times)


def costs(args: tuple[Any, ...]) -> list[tuple[int, float]]:
    """Limits, and the seconds that each costs."""
    found: list[tuple[int, float]] = []
    for limit in LIMITS:
        found.append((limit, cost(args, limit)))
        if found[-1][1] > ENOUGH:
            break
    return found


def seconds(number: float) -> str:
    """A time, as people say it: two digits."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:g} s" if rounded >= 1 else f"{rounded * 1000:g} ms"


def draw(lines: Mapping[str, list[tuple[int, float]]]) -> None:
    """Write the picture."""
    import matplotlib as mpl  # noqa: PLC0415 - see the top
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "publish-cost", "font.size": 11})
    behind = {"facecolor": SHADE, "edgecolor": "none", "pad": 0.5}  # so that no line crosses a text
    figure = Figure(figsize=(9, 5.6), facecolor="white")
    axes = figure.add_axes((0.085, 0.12, 0.80, 0.68))
    axes.set(xscale="log", yscale="log", xlim=(LIMITS[0] / 1.15, LIMITS[-1] * 1.05), ylim=(4e-6, 40))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(which="both", length=0, colors=GRAY)
    axes.minorticks_off()
    axes.set_xticks(LIMITS[::2], [label(limit) for limit in LIMITS[::2]])
    powers = [10.0**power for power in range(-5, 2)]
    axes.set_yticks(powers, [seconds(power) for power in powers])
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("limit: argsrepr_maxsize, in characters", color=GRAY)

    frame = broker_of("amqp").headers_max or 0
    axes.axvspan(frame, LIMITS[-1] * 1.05, color=SHADE, zorder=0, linewidth=0)
    axes.text(frame * 1.08, 6e-6, f"over RabbitMQ's {frame:,} bytes", color="#8a6d3b", fontsize=9.5, bbox=behind)
    above: dict[str, Any] = {
        "xycoords": axes.get_xaxis_transform(),
        "textcoords": "offset points",
        "color": GRAY,
        "fontsize": 9.5,
    }
    for tier in TIERS:
        axes.axvline(tier.limit, color="#b9b9b9", linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(label(tier.limit), (tier.limit, 1), xytext=(0, 4), ha="center", **above)
    axes.annotate("Celery's default", (LIMITS[0], 1), xytext=(-2, 4), ha="left", **above)
    axes.annotate("the size guide's tiers:", (TIERS[0].limit, 1), xytext=(-38, 4), ha="right", **above)
    for name, line in lines.items():
        color = COLORS[name]
        axes.plot(*zip(*line, strict=True), color=color, linewidth=2.2, marker="o", markersize=3.5)
        at, offset, side = LABELS[name]
        where: dict[str, Any] = {"textcoords": "offset points", "color": color}
        axes.annotate(name, (at, dict(line)[at]), xytext=offset, ha=side, fontsize=12, fontweight="bold", **where)
        end = seconds(line[-1][1]) + (", not run beyond" if line[-1][0] < LIMITS[-1] else "")
        axes.annotate(end, line[-1], xytext=(9, -4), ha="left", bbox=behind if "," in end else None, **where)

    figure.text(0.02, 0.935, "What a higher limit costs each publish", fontsize=15, fontweight="bold")
    figure.text(
        0.02,
        0.885,
        "time of Celery's saferepr for arguments of 1 MB of JSON; both scales are logarithmic",
        color=GRAY,
    )
    version = f"Celery {metadata.version('celery')}, Python {platform.python_version()}, {platform.machine()}"
    figure.text(0.985, 0.02, version, color="#999999", fontsize=8, ha="right")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Measure, draw."""
    if util.find_spec("matplotlib") is None:
        print(f"matplotlib is not installed, so {PICTURE.name} was not drawn anew: pip install matplotlib")
        return
    lines = {}
    for name, args in ARGS.items():
        lines[name] = costs(args)
        print(name, *(f"{label(limit)}: {seconds(taken)}" for limit, taken in lines[name]), sep="  ", flush=True)
    draw(lines)


if __name__ == "__main__":
    main()
