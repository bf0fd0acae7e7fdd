"""What lies in monitoring/, as tests read it: the queries of the dashboard, and the rules by way of Prometheus."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from support.servers import ROOT

MONITORING: Final = ROOT / "monitoring"
RULES: Final = MONITORING / "alerts.yml"

#: What else a PromQL expression of ours may consist of: names that are no series'.
_WORDS: Final = {"and", "or", "unless", "offset", "by", "on", "group_left", "bool"}


class Query(NamedTuple):
    """A query of the dashboard, and the panel that shows what it gives."""

    panel: str
    expression: str


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return found


def queries() -> list[Query]:
    """All of them, in the order of panels."""
    return [
        Query(panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def substituted(expression: str, **variables: str) -> str:
    """The expression as Grafana sends it; every variable must have a value."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables[found[1]], expression)


def selectors(expression: str) -> set[str]:
    """The series that *expression* is made of, with their matchers, without ranges and offsets."""
    strings: list[str] = []

    def put_away(found: re.Match[str]) -> str:
        strings.append(found[0])
        return f"{{{len(strings) - 1}}}"

    bare = re.sub(r"\{[^{}]*\}", put_away, expression)
    bare = re.sub(r"\b(?:by|on|group_left)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", bare)
    found = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?:\{(\d+)\})?(?!\s*\(|[\w:{])", bare)
    return {name + (strings[int(place)] if place else "") for name, place in found if name not in _WORDS}
