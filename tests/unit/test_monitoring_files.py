"""What lies in monitoring/: the alerts, by promtool's unit tests; the dashboard, by what Grafana expects of one."""

from __future__ import annotations

import re
import subprocess
from itertools import combinations
from typing import Any

import pytest
from support.monitoring_files import MONITORING, RULES, dashboard, queries, selectors, substituted
from support.prometheus_server import binary
from support.servers import ROOT

from celery_argsize.prometheus.metrics import families

TESTS = ("alerts.test.yml", "alerts.days.test.yml")
RUNBOOK = "docs/runbook.md"
#: What Prometheus has by itself of each target.
ITS_OWN = {"up", "scrape_duration_seconds"}
ALERTS = {
    found[1]: found[0]
    for found in re.finditer(r"- alert: (\w+)\n(?:(?! *- (?:alert|name|record):).*\n?)+", RULES.read_text())
}


def promtool(*command: str) -> None:
    done = subprocess.run(
        [binary("promtool"), *command], cwd=MONITORING, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def anchors() -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def known_series() -> set[str]:
    endings = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
    ours = {family.name + ending for family in families((128,)) for ending in endings.get(family.type, ("",))}
    return ours | ITS_OWN | set(re.findall(r"- record: (\S+)", RULES.read_text()))


def is_known(expression: str) -> bool:
    return {selector.partition("{")[0] for selector in selectors(expression)} <= known_series()


# -- alerts ------------------------------------------------------------------------------------------------------------
def test_prometheus_takes_the_rules_and_the_example() -> None:
    promtool("check", "rules", "--lint-fatal", RULES.name)
    promtool("check", "config", "prometheus.yml")


@pytest.mark.slow
@pytest.mark.parametrize("tests", TESTS)
def test_each_alert_does_what_its_unit_tests_say(tests: str) -> None:
    promtool("test", "rules", tests)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_to_be_quiet_to_fire_and_to_end(alert: str) -> None:
    """By what is expected of it, in the order of time, in one of the tests."""
    told = []
    for file in TESTS:
        for test in (MONITORING / file).read_text().split("  - name: ")[1:]:
            steps = re.findall(rf"eval_time: \w+(?:, |\n +)alertname: {alert}\b(\}}|\n +exp_alerts:)?", test)
            told.append("".join("quiet " if step == "}" else "fires " for step in steps))
    assert any(re.search("quiet .*fires .*quiet ", each) for each in told), told


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_it_means_and_where_to_read_on(alert: str) -> None:
    text = ALERTS[alert]
    assert re.search(r"severity: (critical|warning|info)$", text, re.MULTILINE)
    assert re.search(r"summary: \S", text)
    assert re.search(r"description: >-\n +\S", text)
    assert f"runbook_url: {RUNBOOK}#{alert.lower()}\n" in text
    assert alert.lower() in anchors()


def test_the_runbook_has_no_section_on_what_is_no_alert() -> None:
    sections = set(re.findall(r"^#+ (CeleryTask\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE))
    assert sections == set(ALERTS)


def test_no_bound_of_a_bucket_is_spelled_out() -> None:
    """Prometheus writes them in one way or another, by its version; and users may choose their own."""
    assert not re.search(r"\ble\s*=", RULES.read_text() + "".join(expression for _, expression in queries()))


# -- dashboard ---------------------------------------------------------------------------------------------------------
PANELS: list[dict[str, Any]] = dashboard()["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in dashboard()["templating"]["list"]}
GRAFANAS = {"__range", "__rate_interval"}


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = []
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells.append(
            {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
        )
    assert not any(one & other for one, other in combinations(cells, 2))
    assert {x for panel in cells for x, _ in panel} == {*range(24)}


def test_rows_are_in_the_order_of_questions() -> None:
    rows = [
        panel["title"] for panel in sorted(PANELS, key=lambda panel: panel["gridPos"]["y"]) if panel["type"] == "row"
    ]
    assert rows == ["Overview", "Who sends what", "Truncation", "Health"]


@pytest.mark.parametrize("panel", SHOWING, ids=[panel["title"] for panel in SHOWING])
def test_each_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert all(target["datasource"] == source for target in panel["targets"])
    names = [target["refId"] for target in panel["targets"]]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize(("panel", "expression"), queries())
def test_each_query_asks_for_what_there_is_in_one_job(panel: str, expression: str) -> None:
    used = set(re.findall(r"\$\{?(\w+)", expression))
    assert used <= VARIABLES.keys() | GRAFANAS, panel
    sent = substituted(expression, **dict.fromkeys(VARIABLES.keys() | GRAFANAS, "1m"))
    assert is_known(sent), sent
    assert all('{job="1m"' in selector for selector in selectors(sent)), "no job is counted with another's"


def test_the_rules_ask_for_what_there_is() -> None:
    expressions = re.findall(r"expr: (\|\n(?: {10,}.*\n|\n)+|.*)", RULES.read_text())
    assert len(expressions) == RULES.read_text().count("expr:")
    assert [each for each in expressions if not is_known(each)] == []


def test_variables() -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    assert (VARIABLES["job"]["multi"], VARIABLES["job"]["includeAll"]) == (False, False), "one at a time"
    for name in ("task", "part"):
        assert (VARIABLES[name]["multi"], VARIABLES[name]["includeAll"]) == (True, True)
        asked = " ".join(expression for _, expression in queries())
        assert f'{name}=~"${name}"' in asked
        assert f'{name}="$' not in asked, "several would match nothing"


def test_the_sizes_are_a_heatmap_with_exemplars() -> None:
    heatmap = next(panel for panel in PANELS if panel["type"] == "heatmap")
    target = heatmap["targets"][0]
    assert (target["format"], target["exemplar"], target["range"]) == ("heatmap", True, True)
    assert heatmap["options"]["exemplars"]["color"]
    assert heatmap["options"]["calculate"] is False, "Prometheus has the buckets"
    assert heatmap["options"]["yAxis"]["unit"] == "bytes"


def test_it_opens_anywhere() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 38, "Grafana 10"
    assert (found["time"], found["timezone"]) == ({"from": "now-6h", "to": "now"}, "browser")
    assert "id" not in found, "a number of somebody's own Grafana"
    assert found["uid"] == "celery-argsize"
    assert "http" not in (MONITORING / "dashboard.json").read_text()
    assert found["annotations"]["list"][0]["builtIn"] == 1
