"""Reads the files in monitoring/ for tests: the dashboard and its queries, and the series in a query."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from support.servers import ROOT

MONITORING: Final = ROOT / "monitoring"
RULES: Final = MONITORING / "alerts.yml"

#: Words of PromQL in our expressions that are not names of series.
_WORDS: Final = {"and", "or", "unless", "offset", "by", "on", "group_left", "bool"}


class Query(NamedTuple):
    """A query of the dashboard, and the title of its panel."""

    panel: str
    expression: str


def dashboard() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return data


def queries() -> list[Query]:
    """All queries of the dashboard, in the order of panels."""
    return [
        Query(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def substituted(expression: str, **variables: str) -> str:
    """*expression* as Grafana sends it, with the values of its *variables*. Every variable needs a value."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables[found[1]], expression)


def selectors(expression: str) -> set[str]:
    """The series in *expression* with their matchers, but without ranges and offsets."""
    strings: list[str] = []

    def put_away(match: re.Match[str]) -> str:
        strings.append(match[0])
        return f"{{{len(strings) - 1}}}"

    bare = re.sub(r"\{[^{}]*\}", put_away, expression)
    bare = re.sub(r"\b(?:by|on|group_left)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", bare)
    names = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?:\{(\d+)\})?(?!\s*\(|[\w:{])", bare)
    return {name + (strings[int(place)] if place else "") for name, place in names if name not in _WORDS}
