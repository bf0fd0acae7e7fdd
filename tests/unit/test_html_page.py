"""What the page says, without a browser: its figures are those of the summary, its lines where they belong."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from pages import LIBRARY, NOW, page_of, seen, songs
from simulate import RULES

from celery_argsize.advice import ReprLimits
from celery_argsize.adviser import advise
from celery_argsize.config import DEFAULT_BUCKETS
from celery_argsize.html_chart import BAR, BASELINE, axis_of, draw, limit_mark, short
from celery_argsize.measurement import Measurement, Part
from celery_argsize.report import headline
from celery_argsize.stats import Book, Figures
from celery_argsize.summary import summarize
from celery_argsize.tiers import TIERS

if TYPE_CHECKING:
    from simulate import Call

VOID = {"meta", "link", "line", "use", "path", "input", "col", "wbr", "br"}


class Page(HTMLParser):
    """The page as a reader gets it: texts by the tag they are in, rows of the table, what charts say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.said: dict[str, list[str]] = {}
        self.charts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = dict(attrs)
        if found.get("role") == "img":
            self.charts.append(found["aria-label"] or "")
        if tag not in VOID:
            self._open.append(tag)
            self.said.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.said[tag][-1] += data
        if {"td", "th"} & {*self._open}:
            self.rows[-1][-1] += data


def number(text: str) -> int:
    return int(text.replace(",", ""))


def counted(chart: str) -> tuple[int, int]:
    """Whole and truncated ones that a chart names, added up."""
    bars = chart.partition(", up to ")[2].partition(". ")[0].rstrip(".").split("; ")
    kinds = [kind for bar in bars for kind in bar.partition(": ")[2].split(", ")]
    cut = [kind for kind in kinds if kind.endswith(" truncated")]
    whole = sum(number(kind) for kind in kinds if kind not in cut)
    return whole, sum(number(kind.removesuffix(" truncated")) for kind in cut)


def test_headline_figures_are_those_of_the_report_in_its_words_and_order() -> None:
    summary = seen(LIBRARY)
    page = Page(page_of(summary))
    shown = [*zip(page.said["dt"], [" ".join(text.split()) for text in page.said["dd"]], strict=True)]
    assert shown[: len(headline(summary))] == headline(summary)


def test_a_row_for_each_task_largest_first() -> None:
    summary = seen(LIBRARY)
    rows = Page(page_of(summary)).rows[2:]
    assert [row[0] for row in rows] == [task.name for task in summary.tasks]
    for row, task in zip(rows, summary.tasks, strict=True):
        args, kwargs = task.args, task.kwargs
        expected = [
            *(task.count, task.max, args.max, round(args.mean), args.p95, kwargs.max, round(kwargs.mean), kwargs.p95),
            *(max(args.need.max, kwargs.need.max), task.truncated),
        ]
        assert [number(cell) for cell in row[1:11]] == expected


def test_charts_count_every_repr_once() -> None:
    summary = seen(LIBRARY)
    charts = iter(Page(page_of(summary)).charts)
    for part in [part for task in summary.tasks for part in (task.args, task.kwargs) if part.max]:
        assert counted(next(charts)) == (part.need.count - part.truncated, part.truncated)
    assert next(charts, None) is None


def test_needs_are_summed_up_by_bucket_as_they_are_counted() -> None:
    need = seen({"a": [((1,), {}), ((songs(40),), {})]}).tasks[0].args.need
    assert sum(need.histogram.values()) == need.count == 2
    assert {int(bound) for bound in need.histogram} <= {*DEFAULT_BUCKETS}


def test_the_limit_is_that_of_each_task_and_part() -> None:
    summary = seen({"a": [((list(range(900)),), {"b": "b" * 50})], "c": [((1,), {})]})
    page = page_of(summary, limits=lambda name: ReprLimits(args=5000) if name == "a" else ReprLimits())
    charts = Page(page).charts
    assert [chart.partition("The limit is ")[2] for chart in charts] == ["5,000.", "1,024.", "1,024."]
    assert page.count('href="#l5000"') == 1
    assert page.count('id="l5000"') == page.count('id="l1024"') == 1
    assert "limit of the app now" in page


def test_without_an_app_the_limit_is_said_to_be_celerys() -> None:
    page = page_of(seen({"a": [((1,), {})]}), limits=None)
    assert "Celery's default limit 1,024" in page.replace("&#39;", "'")
    assert "limit of the app now" not in page


@pytest.mark.parametrize("limit", [None, 0, 10**12])
def test_any_limit_can_be_drawn(limit: Any) -> None:
    page = page_of(seen({"a": [((1,), {})]}), limits=lambda _: ReprLimits(args=limit))
    assert ("No limit is set." in page) == (limit is None)


def test_where_no_repr_is_known_the_bytes_of_the_json_are_drawn_and_said_to_be() -> None:
    summary = seen({"a": [(("é" * 500,), {})] * 7}, argsrepr="short", kwargsrepr="short")
    page = page_of(summary)
    (chart,) = Page(page).charts
    assert chart == "args: 7 by bytes of JSON. By bytes, up to 1,024: 7."
    assert "Bytes of JSON, as it is not known what the reprs take" in page
    assert "Reprs: 7 with a repr of the caller" in page
    assert 'href="#l' not in page
    assert "Always empty: 7." in page


def test_what_is_not_drawn_is_counted_beside() -> None:
    book = Book(10)
    for args in (Part(None), Part(None, "size", 1024)):
        book.add(Measurement("a", "id", args, args, NOW), RULES)
    page = page_of(summarize(Figures("x", book.tasks, NOW, NOW)))
    assert Page(page).charts == []
    assert "Never measured, 2 without a JSON form." in page


def test_it_says_where_it_is_from_and_keeps_secrets() -> None:
    summary = seen({"a": [((1,), {})]})
    url = "rediss://me:sesame@redis.internal:6390/4?password=sesame&ssl_ca_path=/secret"
    page = page_of(summary, redis_url=url, broker="amqp://guest:sesame@rabbit//")
    assert "sesame" not in page
    assert "secret" not in page
    for said in (
        "rediss://redis.internal:6390/4",
        "amqp (RabbitMQ",
        "2027-01-13 08:00:00 UTC",
        "2027-01-15 07:59:55 UTC",
        "2027-01-15 08:00:00 UTC",
    ):
        assert said in page
    assert "the memory of one process" in page_of(summary, redis_url=None)
    assert "its limits are not known" in page_of(summary, broker="carrier-pigeon")


def test_the_advice_is_there_in_words_and_to_paste() -> None:
    summary = seen(LIBRARY)
    advice = advise(summary, "redis", "5.7.0")
    page = Page(page_of(summary))
    assert page.said["pre"][0].split("\n") == [*advice.lines]
    assert "APPLY these limits, for all tasks of 94 seen truncated, 94 would be whole" in page.said["p"]
    assert "args: 18 truncated (18 by size)" in "".join(page.said["li"])


def test_names_are_escaped_everywhere() -> None:
    name = "\"><script>alert('1')</script>{{7*7}}&amp;"
    calls: dict[str, list[Call]] = {name: [((list(range(900)),), {})] * 40, f"{name}2": [(("x" * 200_000,), {})] * 40}
    text = page_of(seen(calls, app_name=name), broker="amqp")
    page = Page(text)
    assert page.rows[-1][0] == name
    assert page.said["h3"] == [f"{name}2", name]
    assert page.said["pre"][1].endswith(f"app.send_task({name + '2'!r}, args=(key,))"), "what to paste has names too"
    assert text.count("<script>") == 1
    assert not [tag for tag, attribute, value in page.attributes if "alert" in value or attribute.startswith("on")]


def test_nothing_is_loaded_and_only_our_script_may_run() -> None:
    text = page_of(seen(LIBRARY))
    page = Page(text)
    linked = [value for _, name, value in page.attributes if name in {"src", "href", "action", "data"}]
    assert all(value.startswith("#") or value == "data:," for value in linked)
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [name for _, name, _ in page.attributes if name == "style"]


def test_the_same_figures_give_the_same_page() -> None:
    summary = seen(LIBRARY)
    assert page_of(summary) == page_of(summary)


# -- charts --------------------------------------------------------------------------------------------------------


def test_a_limit_is_drawn_where_its_characters_are() -> None:
    axis = axis_of([{"128": 1}])
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == 100
    step = axis.at(256) - axis.at(128)
    assert axis.at(1024) == pytest.approx(axis.at(128) + 3 * step, abs=0.3)
    assert limit_mark(axis, 1024, "limit") == (axis.at(1024), "limit 1,024", "start")
    assert limit_mark(axis, 2_000_000, "limit").anchor == "end"
    assert (axis.at(0), axis.at(10**15)) == (0, 100)
    assert [mark.x for mark in axis.tiers] == [axis.at(tier.limit) for tier in TIERS]
    assert max(mark.x for mark in axis.tiers) < 95, "with room for a label to the right"


def test_bars_end_at_the_limit_where_the_bucket_does() -> None:
    axis = axis_of([{"1024": 3, "2048": 1}])
    chart = draw(axis, {"1024": 3}, {"2048": 1})
    left, width = re.findall(r"M(\d+) .*?h(\d+)", chart.whole)[0]
    assert int(left) + int(width) <= axis.at(1024) * 10 <= int(re.findall(r"M(\d+)", chart.cut)[0])
    assert chart.words == "1,024: 3; 2,048: 1 truncated"


def test_whole_ones_stand_and_truncated_ones_hang() -> None:
    axis = axis_of([{"128": 1}])
    chart = draw(axis, {"128": 1000, "256": 1}, {"256": 30})
    heights = [int(found) for found in re.findall(r"v(-?\d+)h", chart.whole + chart.cut)]
    assert heights[0] == -BAR
    assert -BAR < heights[1] < 0 < heights[2] < BAR
    assert [label.text for label in chart.labels] == ["1k", "1", "30"]
    assert [label.y > BASELINE for label in chart.labels] == [False, False, True]
    assert chart.height > draw(axis, {"128": 1000}, {}).height


def test_buckets_of_an_apps_own_and_the_last_one_have_their_place() -> None:
    axis = axis_of([{"1000": 1, "50000": 2}, {"+Inf": 1}])
    assert [*axis.bounds] == [1000, 50_000]
    chart = draw(axis, {"1000": 1, "50000": 2, "+Inf": 1}, {})
    assert chart.words == "1,000: 1; 50,000: 2; over 50,000: 1"
    starts = [int(x) for x in re.findall(r"M(\d+)", chart.whole)]
    assert starts == sorted(starts)
    assert axis_of([]).at(1024) > 0


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1234, "1.2k"), (9960, "10k"), (123_456, "123k"), (999_999, "1M"),
     (1_500_000, "1.5M"), (2 * 10**12, "2000G")],
)  # fmt: skip
def test_counts_are_short(value: int, said: str) -> None:
    assert short(value, 1000, "kMG") == said
