"""What Prometheus gets: as prometheus_client reads and writes it, as the summary has it, and nothing that is not so."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from celery_argsize import StoreError
from celery_argsize.advice.advice import ReprLimits
from celery_argsize.figures.counters import Figures, Rules, Tally, TaskStats
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.cuts import CUTS
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import PARTS, Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.prometheus.collector import ArgsizeCollector
from celery_argsize.prometheus.metrics import Scrape, exposition, metrics
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

sizes = st.builds(lambda chars, extra: Size(chars, chars + extra), st.integers(0, 10**9), st.integers(0, 1000))
shapes = st.builds(Shape, *[st.integers(1, 10**6)] * 10)
cuts = st.builds(Part, st.none() | sizes, st.sampled_from(CUTS), st.just(1024), shape=shapes)
parts = cuts | st.builds(Part, st.none() | sizes, st.sampled_from(["intact", "custom"]), st.integers(2, 10**6))
names = st.sampled_from(["scan", "insert", 'a "name"', "å\\n\n%d{}"]) | st.text(max_size=5)
ids = st.sampled_from(["id", "", "%d {}", 'a "b" \\', "x" * 39, "x" * 40, "å"])
measurements = st.lists(st.builds(Measurement, names, ids, parts, parts, st.floats(1, 2e9)), max_size=20)
bounds = st.just(DEFAULT_BUCKETS) | st.sets(st.integers(1, 10**7), min_size=1, max_size=9).map(sorted).map(tuple)


def figures_of(seen: Iterable[Measurement], buckets: tuple[int, ...] = DEFAULT_BUCKETS) -> Figures:
    tally = Tally(1000)
    for measurement in seen:
        tally.add(measurement, Rules(1024, buckets))
    return Figures("app", tally.tasks)


def text_of(figures: Figures, buckets: tuple[int, ...] = DEFAULT_BUCKETS) -> bytes:
    return exposition(Scrape(figures), buckets)


def one(name: str = "scan", args: int | None = 300, kwargs: int | None = 2) -> Measurement:
    both = [Part(None if size is None else Size(size, size), "intact", 9) for size in (args, kwargs)]
    return Measurement(name, "id", both[0], both[1], 1234.5)


def parsed(text: bytes) -> Samples:
    families = [*text_string_to_metric_families(text.decode())]
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(found) == len(dict(found)), "no series twice"
    assert all(family.documentation and family.type != "unknown" for family in families)
    return dict(found)


GENERAL = ("up", "last_flush_timestamp_seconds", "flush_failures_total")


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"celery_task_args_{name}", tuple(sorted(labels.items()))]


class Given:
    """A store with the figures that a test gives, or an error."""

    def __init__(self, *answers: Figures | Exception) -> None:
        self.answers = [*answers]

    def read(self, *_: object) -> Figures:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def collector(*answers: Figures | Exception, **more: Any) -> ArgsizeCollector:
    store: Any = Given(*answers)
    return ArgsizeCollector(store, **more)


def latest(figures: Figures | Exception, buckets: tuple[int, ...] = DEFAULT_BUCKETS) -> bytes:
    registry = CollectorRegistry()
    registry.register(collector(figures, bounds=buckets))
    return generate_latest(registry)


@settings(max_examples=60)
@given(measurements, bounds, bounds)
def test_our_text_is_that_of_prometheus_client(
    seen: list[Measurement], workers: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    figures = figures_of(seen, workers)
    text = text_of(figures, ours)
    theirs = latest(figures, ours)
    assert parsed(text) == parsed(theirs)

    def but_values(lines: bytes) -> list[bytes]:
        return [line if line.startswith(b"#") else line.rpartition(b" ")[0] for line in lines.split(b"\n")]

    assert but_values(text) == but_values(theirs)


@settings(max_examples=60)
@given(measurements)
def test_it_says_what_the_summary_says(seen: list[Measurement]) -> None:
    figures = figures_of(seen)
    samples = parsed(text_of(figures))
    summary = summarize(figures)
    for task in summary.tasks:
        assert value(samples, "large_total", task=task.name) == task.large
        assert value(samples, "unmeasurable_total", task=task.name) == task.unmeasurable
        for name in PARTS:
            part, labels = getattr(task, name), {"task": task.name, "part": name}
            assert value(samples, "size_bytes_count", **labels) == part.count
            assert value(samples, "size_bytes_sum", **labels) == part.total_bytes
            if part.count:
                assert value(samples, "max_size_bytes", **labels) == part.max_bytes
            for cause, number in part.truncated_by.items():
                assert value(samples, "truncated_total", **labels, cause=cause) == number
    tasks = {dict(labels)["task"] for _, labels in samples if "task" in dict(labels)}
    assert tasks == {task.name for task in summary.tasks}


def reached(samples: Samples, **labels: str) -> dict[float, float]:
    """The buckets by their bounds, rising."""
    found = [(dict(key[1]), n) for key, n in samples.items() if key[0] == "celery_task_args_size_bytes_bucket"]
    return dict(sorted((float(of["le"]), n) for of, n in found if labels.items() <= of.items()))


@settings(max_examples=60)
@given(measurements, bounds, bounds)
def test_buckets_add_up_to_all_whatever_those_of_the_workers_are(
    seen: list[Measurement], workers: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    samples = parsed(text_of(figures_of(seen, workers), ours))
    for task in {measurement.task for measurement in seen}:
        measured = [m.args.size.bytes for m in seen if m.task == task and m.args.size is not None]
        filled = reached(samples, task=task, part="args")
        assert [*filled] == [*ours, float("inf")]
        assert all(before <= after for before, after in pairwise(filled.values()))
        assert filled[float("inf")] == len(measured)
        for bound, number in filled.items():
            assert number <= sum(size <= bound for size in measured)
            if bound in workers:
                assert number == sum(size <= bound for size in measured)


@pytest.mark.parametrize(
    "name", ['say "hi"', "a\nb", "a\\nb\\", "100%d %s %", "{task}", "å\U0001f3b5", "\0", "", "__other__"]
)
def test_any_task_name_comes_back_as_it_was(name: str) -> None:
    samples = parsed(text_of(figures_of([one(name), one("scan", 700)])))
    assert value(samples, "size_bytes_sum", task=name, part="args") == 300
    assert value(samples, "size_bytes_sum", task="scan", part="args") == 700


def test_what_could_not_be_measured_has_no_largest_size() -> None:
    samples = parsed(text_of(figures_of([one(args=None, kwargs=7)])))
    assert value(samples, "unmeasurable_total", task="scan") == 1
    assert value(samples, "max_size_bytes", task="scan", part="kwargs") == 7
    assert value(samples, "size_bytes_count", task="scan", part="args") == 0
    with pytest.raises(KeyError):
        value(samples, "max_size_bytes", task="scan", part="args")


def test_empty_arguments_are_sizes_too() -> None:
    samples = parsed(text_of(figures_of([one(args=0, kwargs=0)])))
    assert value(samples, "max_size_bytes", task="scan", part="args") == 0
    assert set(reached(samples, task="scan", part="args").values()) == {1}


def test_large_sums_are_exact() -> None:
    figures = figures_of([one(args=2**53 + 1)])
    assert f'size_bytes_sum{{part="args",task="scan"}} {2**53 + 1}\n' in text_of(figures).decode()


@pytest.mark.parametrize("text", [latest, text_of])
def test_no_names_yet(text: Callable[[Figures], bytes]) -> None:
    samples = parsed(text(Figures("app", {}, updated=1234.5, flush_failures=3)))
    assert samples == {(f"celery_task_args_{name}", ()): n for name, n in zip(GENERAL, (1, 1234.5, 3), strict=True)}


def test_to_register_it_reads_nothing() -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector(AssertionError("read")))


def families_in(openmetrics: str) -> list[Metric]:
    return [*openmetrics_families(openmetrics)]  # type: ignore[no-untyped-call]


@settings(max_examples=60)
@given(measurements, bounds, bounds)
def test_our_openmetrics_is_that_of_prometheus_client(
    seen: list[Measurement], workers: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    scrape = Scrape(figures_of(seen, workers), ReprLimits(2048, 1024), 16_773_120)
    store: Any = Given(figures_of(seen, workers))
    registry = CollectorRegistry()
    registry.register(ArgsizeCollector(store, ours, broker="amqp", recommended=lambda: scrape.recommended))
    text = exposition(scrape, ours, openmetrics=True).decode()
    theirs = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert families_in(text) == families_in(theirs)


def exemplars_of(figures: Figures, buckets: tuple[int, ...] = DEFAULT_BUCKETS) -> dict[tuple[str, str, str], Any]:
    families = families_in(exposition(Scrape(figures), buckets, openmetrics=True).decode())
    return {
        (sample.labels["task"], sample.labels["part"], sample.labels["le"]): sample.exemplar
        for family in families
        for sample in family.samples
        if sample.exemplar
    }


@settings(max_examples=60)
@given(measurements, bounds, bounds)
def test_an_exemplar_names_a_large_task_of_its_bucket(
    seen: list[Measurement], workers: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    found = exemplars_of(figures_of(seen, workers), ours)
    runs = [
        (run.task, part, run.task_id, size.bytes)
        for run in seen
        for part in PARTS
        if (size := getattr(run, part).size) is not None and size.chars > 1024
    ]
    for (task, part, le), exemplar in found.items():
        assert set(exemplar.labels) == {"task_id"}
        assert (task, part, exemplar.labels["task_id"], exemplar.value) in runs
        below = max((bound for bound in ours if bound < float(le)), default=0)
        assert below < exemplar.value <= float(le)
    if workers == ours:
        shown = {
            (task, part, min([bound for bound in ours if bound >= size], default=float("inf")))
            for task, part, task_id, size in runs
            if task_id and len(task_id) < 40 and task_id.isascii()
        }
        assert {(task, part, float(le)) for task, part, le in found} == shown


@pytest.mark.parametrize("workers", [(1,), (1024, 1 << 20), (2048, 3000, 4096), DEFAULT_BUCKETS])
def test_an_exemplar_stands_by_its_own_size_whatever_bucket_a_worker_had_for_it(workers: tuple[int, ...]) -> None:
    figures = figures_of([one(args=3000)], workers)
    assert [*exemplars_of(figures)] == [("scan", "args", "4096.0")]


def test_of_several_in_a_bucket_the_latest_is_the_exemplar() -> None:
    runs = [one(args=3000)._replace(task_id=name, time=when) for name, when in (("a", 5.0), ("b", 7.0), ("c", 6.0))]
    (exemplar,) = exemplars_of(figures_of(runs[:2]), (1024, 4096)).values()
    assert (exemplar.labels, exemplar.value, float(exemplar.timestamp)) == ({"task_id": "b"}, 3000, 7.0)
    late, early = figures_of(runs[1:2]), figures_of(runs[:1])
    late.tasks["scan"].merge(early.tasks["scan"])
    (exemplar,) = exemplars_of(late, (1024, 4096)).values()
    assert exemplar.labels == {"task_id": "b"}


def test_runs_that_could_not_be_measured_are_dropped_ones() -> None:
    figures = Figures("app", {"scan": TaskStats({"errors": 2}), "insert": TaskStats({"count": 1})})
    samples = parsed(text_of(figures))
    assert [value(samples, "dropped_total", task=task) for task in ("scan", "insert")] == [2, 0]


@pytest.mark.parametrize(
    ("broker", "limit"), [("amqp", 16773120), ("redis", (512 * 2**20 - 4096) * 3 // 4), ("memory", None), (None, None)]
)
def test_what_the_broker_takes(broker: str | None, limit: int | None) -> None:
    store: Any = Given(figures_of([one()]))
    samples = parsed(ArgsizeCollector(store, broker=broker).exposition())
    assert samples.get(("celery_task_args_broker_limit_bytes", ())) == limit


def test_recommended_limits_are_shown_where_they_are_known() -> None:
    store: Any = Given(figures_of([one()]), figures_of([one()]), StoreError("away"))
    known: list[ReprLimits | None] = [ReprLimits(16384, 1024), None]
    collector = ArgsizeCollector(store, recommended=lambda: known.pop(0))
    name = "celery_task_argsrepr_recommended_chars"
    samples = parsed(collector.exposition())
    assert {labels: n for (metric, labels), n in samples.items() if metric == name} == {
        (("part", "args"),): 16384,
        (("part", "kwargs"),): 1024,
    }
    assert not [metric for metric, _ in parsed(collector.exposition()) if metric == name]
    assert not [metric for metric, _ in parsed(collector.exposition()) if metric == name], "nor asked for"


ROOT = Path(__file__).parents[3]


def test_the_documented_metrics_are_the_metrics() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(celery_\w+)` \| (\w+) \|([^|]*)\|", text.partition("###")[0], re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    figures = figures_of([one()])
    figures = Figures("app", figures.tasks, updated=1.0)
    found = {}
    for family in metrics(Scrape(figures, ReprLimits(), 1)):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    assert documented == found


@pytest.mark.parametrize("buckets", [DEFAULT_BUCKETS, (128, 1024, 8192, 65536, 524288, 1048576, 8388608)])
def test_the_documented_number_of_series_is_the_number_of_series(buckets: tuple[int, ...]) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert str(list(buckets)) in text or f"With the {len(buckets)} default buckets" in text
    rows = [re.findall(r"[\d,]+", row) for row in re.findall(r"^\| [\d,]+ \| [\d,]+ \| [\d,]+ \|$", text, re.MULTILINE)]
    head = re.search(r"^\| task names \| (\d+) buckets \| (\d+) buckets \|$", text, re.MULTILINE)
    assert head
    column = head.groups().index(str(len(buckets))) + 1
    documented = {int(row[0].replace(",", "")): int(row[column].replace(",", "")) for row in rows}
    assert len(documented) == 4
    for names, series in documented.items():
        few = min(names, 20)  # they are all alike
        samples = parsed(text_of(figures_of([one(f"task {number}") for number in range(few)], buckets), buckets))
        assert len([1 for _, labels in samples if "task" in dict(labels)]) == series * few // names


def described(families: Iterable[Metric]) -> list[tuple[str, str, str]]:
    return [(family.name, family.type, family.documentation) for family in families]


def test_what_it_describes_is_what_it_collects() -> None:
    figures = figures_of([one()])
    assert described(collector().describe()) == described(metrics(Scrape(figures)))
    assert not any(family.samples for family in collector().describe())


def test_two_of_them_in_one_registry_are_refused() -> None:
    registry = CollectorRegistry()
    registry.register(collector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(collector())


def test_what_was_known_is_not_passed_off_as_fresh() -> None:
    figures = figures_of([one()])
    scraped = collector(figures, StoreError("away"), StoreError("away"), figures)
    before = scraped.exposition()
    assert parsed(before)["celery_task_args_up", ()] == 1
    assert parsed(scraped.exposition()) == {("celery_task_args_up", ()): 0}
    assert [sample.value for family in scraped.collect() for sample in family.samples] == [0]
    assert scraped.exposition() == before


def test_it_takes_the_store_of_a_worker_without_redis() -> None:
    store = MemoryStore(Settings())
    store.apply(Batch("w", 1, figures_of([one()]).tasks))
    assert value(parsed(ArgsizeCollector(store).exposition()), "size_bytes_sum", task="scan", part="args") == 300


def imports(code: str, *names: str) -> str:
    """Which of *names* a fresh interpreter has imported after *code*."""
    code = f"import sys; {code}; print(*sorted({set(names)!r} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_only_who_wants_it_imports_prometheus_client() -> None:
    assert not imports(
        "import celery_argsize.worker.monitor, celery_argsize.commands.group", "prometheus_client", "redis"
    )
    assert (
        imports("import celery_argsize.prometheus.collector", "prometheus_client", "celery", "redis")
        == "prometheus_client"
    )
