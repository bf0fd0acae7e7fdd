"""Sightings of hosts, and what they say of the limits that are wanted."""

from __future__ import annotations

from celery_argsize import Measurement, Part, ReprLimits, Size
from celery_argsize.advice.in_force import HostCheck, check_hosts, hosts_text
from celery_argsize.figures.origins import SEEN, Origins, Sighting

WANTED = ReprLimits(args=131_072, kwargs=1024, levels=4)


def seen(args: Part, when: float = 1.0, host: str = "web-1", task: str = "scan") -> Measurement:
    return Measurement(task, "id", args, Part(Size(0, 0), "intact", 2), when, host)


def check(*measurements: Measurement, since: float = 0.0, wanted: ReprLimits = WANTED) -> dict[str, HostCheck]:
    origins = Origins()
    for measured in measurements:
        origins.add(measured)
    return {found.host: found for found in check_hosts(origins.hosts, lambda _: wanted, since)}


CUT = Part(Size(9000, 9000), "size", 1032, 0, 1025)
DEEP = Part(Size(90, 90), "depth", 80, 3)
BOTH = Part(Size(9000, 9000), "both", 1032, 3, 1025)
WHOLE = Part(Size(9000, 9000), "intact", 13_000)
SHORT = Part(Size(9, 9), "intact", 12)


def test_a_cut_below_the_wanted_limit_shows_that_it_is_not_in_force() -> None:
    for part, words in ((CUT, "cut at 1,025 characters"), (DEEP, "cut at 3 levels, wanted are 4"), (BOTH, "cut at")):
        (host,) = check(seen(part)).values()
        assert host.verdict == "not_in_force"
        assert words in hosts_text([host])
    assert check(seen(DEEP), wanted=ReprLimits(levels=0))["web-1"].verdict == "not_in_force", "0 shows all levels"


def test_a_cut_at_or_above_the_wanted_limit_shows_nothing() -> None:
    assert check(seen(CUT), wanted=ReprLimits())["web-1"].verdict == "no_evidence"
    assert check(seen(DEEP), wanted=ReprLimits())["web-1"].verdict == "no_evidence"
    assert check(seen(Part(Size(9, 9), "size", 30, 0, 0)))["web-1"].verdict == "no_evidence", "a cut that does not tell"


def test_a_long_repr_that_came_whole_shows_that_it_is() -> None:
    assert check(seen(WHOLE))["web-1"].verdict == "in_force"
    assert check(seen(SHORT))["web-1"].verdict == "no_evidence"


def test_the_newer_header_counts() -> None:
    assert check(seen(CUT, 1), seen(WHOLE, 2))["web-1"].verdict == "in_force"
    assert check(seen(WHOLE, 1), seen(CUT, 2))["web-1"].verdict == "not_in_force"
    assert check(seen(WHOLE, 2), seen(CUT, 1), seen(CUT, 3))["web-1"].verdict == "not_in_force"


def test_levels_can_be_seen_to_have_arrived_too() -> None:
    deep = Part(Size(90, 90), "intact", 120, 5)
    assert check(seen(deep))["web-1"].verdict == "in_force"
    assert check(seen(Part(Size(90, 90), "intact", 120, 3)))["web-1"].verdict == "no_evidence"
    assert check(seen(DEEP, 1), seen(deep, 2))["web-1"].verdict == "in_force"
    assert check(seen(deep, 1), seen(DEEP, 2))["web-1"].verdict == "not_in_force"
    assert "a repr of 5 levels came whole" in hosts_text([*check(seen(deep)).values()])


def test_each_host_by_itself_and_the_bad_ones_first() -> None:
    checks = check(seen(WHOLE, host="a"), seen(CUT, host="b"), seen(SHORT, host="c"))
    assert [(host, found.verdict) for host, found in checks.items()] == [
        ("b", "not_in_force"),
        ("a", "in_force"),
        ("c", "no_evidence"),
    ]


def test_only_what_was_seen_since() -> None:
    assert check(seen(CUT, 10), seen(SHORT, 20), since=15)["web-1"].verdict == "no_evidence"
    assert check(seen(CUT, 10), since=15) == {}


def test_a_message_that_names_no_host_is_passed_over() -> None:
    assert check(seen(CUT, host="")) == {}


def test_sightings_are_bounded() -> None:
    origins = Origins()
    for number in range(1000):
        origins.add(seen(CUT, host=f"web-{number}"))
        origins.add(seen(CUT, host="web-0", task=f"task {number}"))
    assert len(origins.hosts) == Origins.MAX_HOSTS
    assert len(origins.hosts["web-0"]) == Origins.MAX_SIGHTINGS


def test_forgetting_one_task_keeps_the_others() -> None:
    origins = Origins()
    origins.add(seen(BOTH, task="a:b"))
    origins.add(seen(CUT, task="b"))
    origins.clear("b")
    assert origins.hosts["web-1"].keys() == {SEEN, "size:args:a:b", "depth:args:a:b"}
    assert origins.hosts["web-1"]["size:args:a:b"] == Sighting(1025, 1.0)
    origins.clear()
    assert origins.hosts == {}
