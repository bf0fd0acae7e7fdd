"""What the page says, without a browser: its figures are those of the summary, its lines where they belong."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from support.pages import LIBRARY, NOW, page_of, seen, songs
from support.simulate import RULES

from celery_argsize.advice.advice import ReprLimits
from celery_argsize.advice.adviser import advise
from celery_argsize.figures.counters import Figures, Tally
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.views.report import headline, report_text, to_paste

if TYPE_CHECKING:
    from support.simulate import Call

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


def boxes(text: str) -> tuple[str, str]:
    """All that the box with the advice says, and all that the section with the headline figures does."""
    sections = Page(text).said["section"]
    figures, advice = (" ".join(section.split()) for section in sections[:2])
    return advice, figures


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
    assert "Reprs: 7 with a repr that the caller wrote." in page
    assert 'href="#l' not in page
    assert "Empty in all 7 runs." in page
    assert "Empty in 1 run." in page_of(seen({"a": [((1,), {})]}))


def test_what_is_not_drawn_is_counted_beside() -> None:
    tally = Tally(10)
    for args in (Part(None), Part(None, "size", 1024)):
        tally.add(Measurement("a", "id", args, args, NOW), RULES)
    page = page_of(summarize(Figures("x", tally.tasks, NOW, NOW)))
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
    assert "Advice: raise the limit for all tasks" in page.said["p"]


def test_where_nothing_is_truncated_nothing_is_said_to_cure_it() -> None:
    summary = seen({"a": [(("x" * 900,), {})] * 40})
    (box, *_) = boxes(page_of(summary))
    assert box == "Truncated reprs Nothing to do so far: no truncated repr was seen in 40 runs."
    (box, *_) = boxes(page_of(seen({"a": [((1,), {})]})))
    assert box.endswith("no truncated repr was seen in 1 run.")


@pytest.mark.parametrize("size", [10, 900, 200_000, 3_000_000])
@pytest.mark.parametrize("runs", [1, 40])
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_the_page_tells_to_paste_what_the_text_report_does(size: int, runs: int, broker: str) -> None:
    summary = seen({"a": [(("x" * size,), {})] * runs})
    advice = advise(summary, broker, "5.7.0")
    title, lines = to_paste(summary, advice)
    text = page_of(summary, broker=broker)
    box, figures = boxes(text)
    for line in lines:
        assert (line in box, line in figures) == (bool(advice.lines), not advice.lines)
    assert title in (box if advice.lines else figures)
    assert ("argsrepr_maxsize" in box + figures) == ("argsrepr_maxsize" in report_text(summary, advice))
    told = [unescape(text).count(line) for line in (advice.against_the_guide,) if line]
    assert told in ([], [1]), "what harm the tier would do is told once"


def test_causes_are_called_as_elsewhere() -> None:
    both = [[[[[n]]]] for n in range(900)]
    page = page_of(seen({"a": [((both,), {})] * 40}))
    assert "Truncated parts: 40 by size and depth" in page
    assert "args: 40 truncated (40 by size and depth)" in page


def test_a_single_task_is_not_called_these_tasks() -> None:
    calls: dict[str, list[Call]] = {"a": [((list(range(900)),), {})] * 40, "b": [(("x" * 200_000,), {})] * 40}
    page = Page(page_of(seen(calls), broker="amqp"))
    assert {row[0]: row[-1] for row in page.rows[2:]} == {
        "a": "raise the limit for this task",
        "b": "don't raise the limit; pass a reference",
    }


def test_what_hangs_left_of_the_limit_is_told_with_an_app_and_without() -> None:
    summary = seen(LIBRARY)
    for limits in (None, lambda _: ReprLimits()):
        page = " ".join(page_of(summary, limits=limits).split())
        assert "What hangs left of the limit was cut for its depth, or by a lower limit where it was sent from." in page


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
