"""Draws docs/images/publish-cost.svg: the time that Celery's saferepr takes, for each limit.

``make bench-advice`` runs it. It does nothing unless matplotlib is installed, which is not among the development tools:
``pip install matplotlib``. It takes about a minute, most of it for the tiny dicts.
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

#: Limits in characters: from 1 KB, Celery's default, to 2 MB, the guide's last tier.
LIMITS: Final = [KB << step for step in range(12)]
#: Seconds. Once a repr takes longer, higher limits are not tried for that shape.
ENOUGH: Final = 10.0
#: A repr that takes fewer seconds than this is timed several times, and the best time counts.
STEADY: Final = 0.2
ROUNDS: Final = 3

#: Name → args of about 1 MB of JSON.
ARGS: Final[Mapping[str, tuple[Any, ...]]] = {
    "tiny dicts": ([{"a": number % 10} for number in range(MB // 8)],),
    "records of 6 keys": SHAPES["records"](MB),
    "ids": SHAPES["ids"](MB),
    "one text": SHAPES["one long text"](MB),
}
COLORS: Final = {"tiny dicts": "#b3362c", "records of 6 keys": "#c77700", "ids": "#1f6fb2", "one text": "#2f7d4f"}
#: Where the name of a line goes: the limit, the offset in points (right, up), and the alignment.
LABELS: Final = {
    "tiny dicts": (8192, (-8, 8), "right"),
    "records of 6 keys": (8192, (8, -15), "left"),
    "ids": (2048, (0, 8), "center"),
    "one text": (16384, (-6, 9), "right"),
}
GRAY: Final = "#666666"
#: Background color for limits that do not fit into RabbitMQ's frame.
SHADE: Final = "#f4efe6"


def cost(args: tuple[Any, ...], limit: int) -> float:
    """CPU seconds that saferepr takes for *args* with this *limit*."""
    times: list[float] = []
    while not times or (len(times) < ROUNDS and times[0] < STEADY):
        began = time.thread_time()
        saferepr(args, limit)
        times.append(time.thread_time() - began)
    return min(times)


def costs(args: tuple[Any, ...]) -> list[tuple[int, float]]:
    """The points of one line: (limit, seconds)."""
    points: list[tuple[int, float]] = []
    for limit in LIMITS:
        points.append((limit, cost(args, limit)))
        if points[-1][1] > ENOUGH:
            break
    return points


def seconds(number: float) -> str:
    """A time with two digits, as people write it: ``1.5 s``, ``20 ms``."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:g} s" if rounded >= 1 else f"{rounded * 1000:g} ms"


def draw(lines: Mapping[str, list[tuple[int, float]]]) -> None:
    """Draw the *lines*, and write the picture."""
    import matplotlib as mpl  # noqa: PLC0415 - may not be installed
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "publish-cost", "font.size": 11})
    behind = {"facecolor": SHADE, "edgecolor": "none", "pad": 0.5}  # a box that hides lines behind a text
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
    """Time all shapes, and draw the picture."""
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
