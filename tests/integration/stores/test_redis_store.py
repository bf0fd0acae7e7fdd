"""The Redis store on a real server: once and only once, one key a task, nothing that grows with the tasks run."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.servers import ROOT, RedisServer, free_port, wait_until

from celery_argsize import SchemaError, StoreError
from celery_argsize.figures.counters import OTHER, Exemplar, Extreme, Rules, Tally, TaskStats
from celery_argsize.figures.origins import Origins, Sighting
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import MAX_ORIGINS, ORIGIN_TTL, WRITER_TTL, RedisStore, apps_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery_argsize.measuring.cuts import Verdict

RULES = Rules(1024, DEFAULT_BUCKETS)
BUCKETS = (*map(str, DEFAULT_BUCKETS), "+Inf")


def batch(sequence: int, names: list[str], size: int = 10, writer: str = "w") -> Batch:
    tally = Tally(10_000)
    for name in names:
        parts = Part(Size(size, size * 2), "size"), Part(None)
        tally.add(Measurement(name, f"id of {size}", *parts, 1234.5), RULES)
    return Batch(writer, sequence, tally.tasks)


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, app_name="music")


@pytest.fixture
def store(settings: Settings) -> Iterator[RedisStore]:
    store = RedisStore(settings)
    yield store
    store.close()


def kept(stats: TaskStats) -> TaskStats:
    """What is kept of *stats*: no counters that are 0, and where the largest was, of characters only."""
    counts = {field: by for field, by in stats.counts.items() if by}
    return TaskStats(
        counts,
        {
            field: seen if field.endswith(".max_chars") else Extreme(seen.value, "", 0.0)
            for field, seen in stats.maxima.items()
        },
        {field: seen._replace(time=round(seen.time, 3)) for field, seen in stats.exemplars.items()},
    )


@pytest.mark.smoke
def test_what_is_read_is_what_was_written(store: RedisStore) -> None:
    sent = batch(1, ["scan", "scan", "insert", "nom à accents", "a:b{c}"], size=2**40)
    before = time.time()
    store.apply(sent)
    figures = store.read()
    assert dict(figures.tasks) == {name: kept(stats) for name, stats in sent.tasks.items()}
    assert figures.since is not None
    assert figures.updated is not None
    assert before <= figures.since <= figures.updated <= time.time()


VERDICTS: tuple[Verdict, ...] = ("intact", "size", "depth", "both", "custom", "unknown")


def any_part(rng: random.Random, most: float) -> Part:
    """A part of any verdict, and any size up to 2 to the power of *most*; one in ten has no JSON form."""
    verdict = rng.choice(VERDICTS)
    if rng.random() < 0.1:
        return Part(None, verdict)
    chars = int(2 ** rng.uniform(0, most)) - 1
    need = int(chars * rng.uniform(0.9, 1.3))
    cut = verdict in {"size", "depth", "both"} and rng.random() < 0.9
    sums = [rng.randrange(2 * chars + 1) for _ in range(8)]
    shape = Shape(need, rng.randrange(1, 7), *sums) if cut else None
    return Part(Size(chars, int(chars * rng.choice((1, 1, 1.2, 3)))), verdict, need, shape=shape)


def any_task(rng: random.Random, runs: int, most: float = 30) -> TaskStats:
    stats = TaskStats({"errors": rng.randrange(2)})
    for number in range(runs):
        parts = any_part(rng, most), any_part(rng, most)
        stats.add(Measurement("scan", f"id {number}", *parts, rng.uniform(1e9, 2e9)), RULES)
    return stats


def test_any_figures_are_read_as_they_were_added_up(store: RedisStore) -> None:
    rng = random.Random(5)
    total: dict[str, TaskStats] = {}
    for sequence in range(1, 101):
        tasks = {f"task {rng.randrange(9)}": any_task(rng, rng.randrange(1, 30)) for _ in range(3)}
        store.apply(Batch("w", sequence, tasks))
        for name, stats in tasks.items():
            total.setdefault(name, TaskStats()).merge(stats)
    figures = store.read()
    assert dict(figures.tasks) == {name: kept(stats) for name, stats in total.items()}
    assert summarize(figures).tasks == summarize(replace(figures, tasks=total)).tasks


def test_figures_that_come_in_pieces_add_up(store: RedisStore) -> None:
    """As from a child whose pipe was full: a field at a time."""
    stats = any_task(random.Random(6), 50)
    pieces = [TaskStats({field: by}) for field, by in stats.counts.items()]
    pieces += [TaskStats({}, {field: seen}) for field, seen in stats.maxima.items()]
    pieces += [TaskStats({}, {}, {field: seen}) for field, seen in stats.exemplars.items()]
    for sequence, piece in enumerate(pieces, 1):
        store.apply(Batch("w", sequence, {"scan": piece}))
    assert dict(store.read().tasks) == {"scan": kept(stats)}


def test_other_buckets_add_up_beside_those_that_are_there(store: RedisStore) -> None:
    measurement = Measurement("scan", "id", Part(Size(3000, 3000), "intact", 3000), Part(Size(9, 9), "intact", 9), 1.0)
    total = TaskStats()
    for sequence, bounds in enumerate([DEFAULT_BUCKETS, (1, 1000, 1500, 4096, 1 << 20), (7,)], 1):
        stats = TaskStats()
        stats.add(measurement, Rules(1024, bounds))
        store.apply(Batch("w", sequence, {"scan": stats}))
        total.merge(stats)
    assert dict(store.read().tasks) == {"scan": kept(total)}


@pytest.mark.smoke
def test_a_batch_that_is_sent_again_changes_nothing(store: RedisStore, settings: Settings) -> None:
    first, second = batch(1, ["scan"]), batch(2, ["scan"])
    store.apply(first)
    store.apply(first)
    store.apply(second)
    store.apply(first)
    RedisStore(settings).apply(second)
    store.apply(batch(1, ["scan"], writer="another"))
    assert store.read().tasks["scan"].counts["count"] == 3


def failures(store: RedisStore) -> int:
    return store.read().flush_failures


def test_failures_of_writers_are_counted_once_whatever_redis_answered(store: RedisStore) -> None:
    first = batch(1, ["scan"])
    store.apply(first)
    assert failures(store) == 0
    store.apply(first, 2)  # no answer came to the first two attempts, of which one had arrived
    assert failures(store) == 2
    store.apply(first, 3)
    assert failures(store) == 3
    store.apply(batch(2, ["scan"]), 0)
    store.apply(batch(3, ["scan"]), 4)
    assert failures(store) == 7
    store.apply(batch(1, ["scan"], writer="other"), 5)
    assert failures(store) == 12
    store.reset()
    assert failures(store) == 12
    assert store.read().tasks == {}


def test_a_count_of_failures_that_is_none_keeps_no_figures_back(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client() as client:
        client.hset("celery-argsize:{music}:meta", "flush_failures", "2.5")
        store.apply(batch(2, ["scan"]), 4)
        client.hdel("celery-argsize:{music}:meta", "flush_failures")
    assert store.read().tasks["scan"].counts["count"] == 2


@pytest.mark.parametrize("field", ["since", "updated", "flush_failures"])
def test_meta_that_is_no_number_is_named(store: RedisStore, redis_server: RedisServer, field: str) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client() as client:
        client.hset("celery-argsize:{music}:meta", field, "soon")
        with pytest.raises(StoreError, match=rf"{field} in .*meta in .* is no number; remove it: HDEL .*meta {field}"):
            store.read()
        client.hdel("celery-argsize:{music}:meta", field)
    assert store.read().tasks["scan"].counts["count"] == 1


def test_the_latest_exemplar_of_a_bucket_is_kept_and_forgotten_at_a_reset(
    store: RedisStore, redis_server: RedisServer
) -> None:
    sizes = [
        (1, 5000, "first"),
        (2, 6000, 'a "b" %d 12 1.5'),
        (3, 3000, "x" * 39),
        (4, 2**40, "-"),
        (5, 5000, "x" * 40),
    ]
    for sequence, size, task_id in sizes:
        stats = TaskStats()
        part = Part(Size(size, size), "intact", size)
        stats.add(Measurement("scan", task_id, part, part, 1795263869.7774), RULES)
        store.apply(Batch("w", sequence, {"scan": stats}))
    found = store.read().tasks["scan"].exemplars
    expected = {"4096": (3000, "x" * 39), "8192": (6000, 'a "b" %d 12 1.5'), "+Inf": (2**40, "-")}
    assert found == {
        f"{part}.last_le.{bound}": Exemplar(size, task_id, 1795263869.777)
        for part in ("args", "kwargs")
        for bound, (size, task_id) in expected.items()
    }
    with redis_server.client() as client:
        key = "celery-argsize:{music}:task:scan"
        assert client.hget(key, "ax8K") == b'6000 a "b" %d 12 1.5 1795263869.777'
        client.hset(key, mapping={"ax16K": "nonsense", "ax32K": "1 2", "ax64K": ""})
    assert store.read().tasks["scan"].exemplars == found
    early = TaskStats({}, {}, {"args.last_le.8192": Exemplar(7000, "early", 1795263869.5)})
    store.apply(Batch("w", 9, {"scan": early}))
    assert store.read().tasks["scan"].exemplars == found, "it is not the latest"
    assert store.read(("args.count",)).tasks["scan"].exemplars == {}
    store.reset("scan")
    assert store.read().tasks == {}


def sighted(sequence: int, hosts: list[str], when: float = 1234.5, limit: int = 1030, writer: str = "w") -> Batch:
    tally = Tally(10)
    for host in hosts:
        part = Part(Size(9000, 9000), "both", 1100, 3, limit)
        tally.add(Measurement("a:b", "id", part, Part(Size(0, 0), "intact", 2), when, host), RULES)
    return Batch(writer, sequence, tally.tasks, tally.origins.take())


@pytest.mark.smoke
def test_the_latest_sighting_of_a_host_is_kept(store: RedisStore) -> None:
    store.apply(sighted(1, ["web-1", "web-2"]))
    store.apply(sighted(2, ["web-2"], 1300.25, 2048))
    store.apply(sighted(1, ["web-2"], 1299.5, 4096, writer="late"))
    seen = store.read_origins()
    assert seen["web-1"]["size:args:a:b"] == Sighting(1030, 1234.5)
    assert seen["web-2"] == {
        "seen": Sighting(0, 1300.25),
        "size:args:a:b": Sighting(2048, 1300.25),
        "depth:args:a:b": Sighting(3, 1300.25),
    }


def test_hosts_are_bounded_and_forgotten(store: RedisStore, redis_server: RedisServer) -> None:
    for sequence in range(1, 8):
        store.apply(sighted(sequence, [f"pod-{sequence}-{n}" for n in range(200)]))
    seen = store.read_origins()
    assert len(seen) == MAX_ORIGINS
    assert "pod-7-199" in seen
    with redis_server.client() as client:
        keys = client.keys("celery-argsize:{music}:origin:*")
        assert len(keys) == MAX_ORIGINS, "what falls out of the list is deleted"
        assert 0 < client.ttl(keys[0]) <= ORIGIN_TTL


def test_sightings_of_a_host_are_bounded_and_those_that_are_there_go_on(store: RedisStore) -> None:
    for sequence, names in enumerate([range(150), range(100, 250)], 1):
        sightings = {f"size:args:task {n}": Sighting(1030, float(sequence)) for n in names}
        store.apply(Batch("w", sequence, {}, {"web-1": sightings}))
    seen = store.read_origins()["web-1"]
    assert len(seen) == Origins.MAX_SIGHTINGS
    assert seen["size:args:task 99"].time == 1.0
    assert seen["size:args:task 149"].time == seen["size:args:task 150"].time == 2.0


def test_a_reset_forgets_sightings_too(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(sighted(1, ["web-1"]))
    store.reset("a:b")
    assert store.read_origins()["web-1"].keys() == {"seen"}
    store.apply(sighted(2, ["web-1"]))
    store.reset()
    assert store.read_origins() == {}
    with redis_server.client() as client:
        assert not client.keys("*origin*")


@pytest.mark.smoke
def test_portions_from_many_writers_at_once_add_up(settings: Settings) -> None:
    def write(writer: str) -> None:
        store = RedisStore(settings)
        for sequence in range(1, 51):
            store.apply(batch(sequence, ["scan", "insert"], size=sequence, writer=writer))
        store.close()

    threads = [threading.Thread(target=write, args=(f"writer {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = RedisStore(settings).read().tasks["insert"]
    assert stats.counts["count"] == 400
    assert stats.counts["args.chars"] == 8 * sum(range(1, 51))
    assert stats.maxima["args.max_bytes"].value == 100
    assert stats.maxima["args.max_chars"] == Extreme(50, "id of 50", 1234.5)


@pytest.mark.smoke
def test_names_past_the_cap_are_added_up_for_all_writers_together(settings: Settings) -> None:
    settings = replace(settings, max_task_names=5)
    for writer in range(4):
        names = [f"task {writer * 3 + n}" for n in range(3)]
        RedisStore(settings).apply(batch(1, names, writer=f"writer {writer}"))
    RedisStore(settings).apply(batch(1, ["task 0"], writer="one more"))
    tasks = RedisStore(settings).read().tasks
    assert len(tasks) == 6
    assert tasks[OTHER].counts["count"] == 7
    assert tasks["task 0"].counts["count"] == 2


def filled(rng: random.Random) -> TaskStats:
    """Every counter and bucket there can be, with figures as after millions of runs."""
    stats = any_task(rng, 500)
    for part in ("args", "kwargs"):
        for kind, most in (("chars_le", 7), ("bytes_le", 7), ("need_le", 7), ("flat_le", 7), ("deep_le", 7)):
            stats.counts |= {f"{part}.{kind}.{bound}": rng.randrange(10**most) for bound in BUCKETS}
        for kind in ("flat_need_le", "deep_need_le"):
            stats.counts |= {f"{part}.{kind}.{bound}": rng.randrange(10**12) for bound in BUCKETS}
        large = [bound for bound in BUCKETS if float(bound.replace("+Inf", "inf")) > 1024]
        stats.exemplars |= {f"{part}.last_le.{bound}": Exemplar(10**9 - 1, "x" * 39, 1795263869.777) for bound in large}
    stats.maxima = {field: Extreme(seen.value, "x" * 64, seen.time) for field, seen in stats.maxima.items()}
    return stats


def test_a_name_takes_little_memory(store: RedisStore, redis_server: RedisServer) -> None:
    rng = random.Random(7)
    big = 17.6  # 200,000 characters
    store.apply(
        Batch("w", 1, {"every field": filled(rng), "much": any_task(rng, 3000, big), "little": any_task(rng, 1)})
    )
    with redis_server.client() as client:
        key = "celery-argsize:{music}:task:"
        sizes = {name: client.memory_usage(key + name, samples=0) for name in ("every field", "much", "little")}
        assert client.object("encoding", key + "every field") in {b"listpack", b"ziplist"}
    assert sizes["little"] < 1024
    assert sizes["much"] < 4096
    assert sizes["every field"] < 7680


def test_fields_are_named_as_documented(store: RedisStore, redis_server: RedisServer) -> None:
    stats = filled(random.Random(8))
    stats.merge(TaskStats({"errors": 1, "args.cut_keys": 1}))
    store.apply(Batch("w", 1, {"scan": stats}))
    with redis_server.client(decode_responses=True) as client:
        names = set(client.hkeys("celery-argsize:{music}:task:scan"))
    assert {"ac128", "kn64K", "aD2M", "kb128M", "af+Inf", "a.chars", "k.max_chars_id", "count"} <= names
    documented = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "redis-schema.md").read_text(encoding="utf-8")))
    for name in names:
        bucket = re.fullmatch(r"[ak](\w)(\d+[KM]?|\+Inf)", name)
        assert (bucket[1] if bucket else re.sub(r"^[ak]\.", "part.", name)) in documented
    assert f"has at most {len(names)} fields" in (ROOT / "docs" / "redis-schema.md").read_text(encoding="utf-8")


def test_a_name_costs_redis_one_look_and_what_changed(store: RedisStore, redis_server: RedisServer) -> None:
    """How often the script calls Redis, for 50 names that are known, plain ASCII in two sizes."""
    names = [f"task {n}" for n in range(50)]
    store.apply(ascii_batch(1, names, [300, 3000]))
    with redis_server.client() as client:
        client.config_resetstat()
        store.apply(ascii_batch(2, names, [200, 2500]))
        calls = {name[8:]: seen["calls"] for name, seen in client.info("commandstats").items()}
    assert calls["smismember"] == 1
    assert calls["hmget"] == 50 + 1, "the maxima of each, and the schema"
    assert calls["hset"] == 50 + 1, "the exemplars of each, and updated; no maximum grew"
    # sums of chars, bytes and needs; two buckets of each for args, one for kwargs; runs, large, args.large
    assert calls["hincrby"] == 50 * 18
    assert sum(calls.values()) < 50 * 20 + 15


def ascii_batch(sequence: int, names: list[str], sizes: list[int]) -> Batch:
    tally = Tally(len(names))
    for name in names:
        for size in sizes:
            parts = Part(Size(size, size), "intact", size), Part(Size(3, 3), "intact", 3)
            tally.add(Measurement(name, "id", *parts, 1234.5), RULES)
    return Batch("w", sequence, tally.tasks)


def test_its_size_does_not_grow_with_the_number_of_tasks(store: RedisStore, redis_server: RedisServer) -> None:
    def memory() -> tuple[int, int]:
        with redis_server.client() as client:
            keys = list(client.scan_iter("celery-argsize:*"))
            return len(keys), sum(client.memory_usage(key) for key in keys)

    def work(sequence: int, runs: int) -> None:
        sent = batch(sequence, [f"task {n}" for n in range(50)])
        for stats in sent.tasks.values():
            for field in stats.counts:
                stats.counts[field] *= runs
        store.apply(sent)

    work(1, 1)
    keys, size = memory()
    for sequence in range(2, 200):
        work(sequence, 1_000_000)
    keys_after, size_after = memory()
    assert keys_after == keys
    assert size_after < size * 1.5
    assert size_after / 50 < 4096, "bytes for each name"


def test_keys_are_named_and_expire_as_documented(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client(decode_responses=True) as client:
        assert set(client.scan_iter("*")) == {
            "celery-argsize:apps",
            "celery-argsize:{music}:meta",
            "celery-argsize:{music}:names",
            "celery-argsize:{music}:task:scan",
            "celery-argsize:{music}:writer:w",
        }
        assert client.hget("celery-argsize:{music}:meta", "schema") == "1"
        assert 0 < client.ttl("celery-argsize:{music}:writer:w") <= WRITER_TTL
        assert client.ttl("celery-argsize:{music}:task:scan") == -1


@pytest.mark.smoke
def test_a_reset_forgets_one_or_all_but_not_the_writers(store: RedisStore) -> None:
    store.apply(batch(1, ["scan", "insert"]))
    since = store.read().since
    store.reset("scan")
    store.reset("never seen")
    assert set(store.read().tasks) == {"insert"}
    assert store.read().since == since
    store.reset()
    store.apply(batch(1, ["scan", "insert"]))
    assert store.read().tasks == {}
    assert store.read().since > since  # type: ignore[operator]


def test_apps_and_prefixes_do_not_mix(settings: Settings) -> None:
    RedisStore(settings).apply(batch(1, ["scan"]))
    RedisStore(replace(settings, app_name="billing")).apply(batch(1, ["charge"]))
    RedisStore(replace(settings, key_prefix="elsewhere")).apply(batch(1, ["hidden"]))
    assert set(RedisStore(settings).read().tasks) == {"scan"}
    assert apps_in(settings) == ["billing", "music"]
    assert apps_in(replace(settings, key_prefix="elsewhere")) == ["music"]


@pytest.mark.smoke
def test_where_redis_has_lost_all_it_had_the_app_is_listed_again(
    store: RedisStore, settings: Settings, redis_server: RedisServer
) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client() as client:
        client.flushall()
    store.apply(batch(2, ["scan"]))
    assert apps_in(settings) == ["music"]
    assert store.read().tasks["scan"].counts["count"] == 1


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client() as client:
        client.script_flush()
    store.apply(batch(2, ["scan"]))
    assert store.read().tasks["scan"].counts["count"] == 2


@pytest.mark.smoke
def test_another_schema_is_refused_and_left_alone(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(batch(1, ["scan"]))
    with redis_server.client() as client:
        client.hset("celery-argsize:{music}:meta", "schema", "2")
    with pytest.raises(SchemaError, match="schema 2, this version of celery_argsize has 1"):
        store.apply(batch(2, ["scan"]))
    for refused in (store.read, store.reset):
        with pytest.raises(SchemaError, match="schema 2"):
            refused()


@pytest.mark.smoke
def test_its_connection_opens_when_first_used_and_has_a_name(settings: Settings, redis_server: RedisServer) -> None:
    def ours() -> set[str]:
        with redis_server.client() as client:
            return {found["id"] for found in client.client_list() if found["name"] == "celery-argsize"}

    before = ours()  # those of earlier tests may end meanwhile
    store = RedisStore(settings)
    store.prepare()
    assert ours() <= before
    store.apply(batch(1, ["scan"]))
    store.read()
    assert len(ours() - before) == 1
    store.close()
    wait_until(lambda: ours() <= before, what="the end of the connection")


@pytest.mark.smoke
def test_the_flushers_thread_imports_nothing(redis_url: str) -> None:
    """A fork while a thread imports would leave that import locked in the child."""
    code = f"""
import logging, sys, time
from celery_argsize.settings import Settings, resolve
from celery_argsize.worker.flusher import Flusher
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.json_size import Size
from celery_argsize.figures.counters import Rules
from celery_argsize.stores.redis import RedisStore
from celery_argsize.worker.notes import PipeNotes
from celery_argsize.worker.shared_counters import SharedCounters
logging.basicConfig()
for url in ({redis_url!r}, "redis://localhost:1/0"):
    settings = Settings(redis_url=url, flush_interval=0.05)
    rules = Rules(1, (1,))
    counters, notes = SharedCounters(rules, 10, 1), PipeNotes()
    store = RedisStore(settings)
    store.prepare()
    flusher = Flusher(counters, notes, store, settings, "w")
    before = set(sys.modules)
    flusher.start()
    run = Measurement("scan", "id", Part(Size(1, 1)), Part(None), 1.0)
    counters.region().update("scan", rules.layout.changes(run.args, run.kwargs))
    notes.send({{"host": "web-1", "sightings": {{"seen": (0, 1.0)}}}})
    flusher.flush(5)
    flusher.stop(0)
    print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"maxmemory": "1", "maxmemory-policy": "noeviction"}, "it is out of memory; raise its maxmemory"),
        ({"maxclients": "1"}, "it has no place for another client"),
        ({"requirepass": "sesame"}, "it wants a user name and password"),
    ],
)
@pytest.mark.smoke
def test_errors_name_the_fix_and_nothing_is_half_written(tmp_path: Path, config: dict[str, str], said: str) -> None:
    server = RedisServer(tmp_path).start()
    try:
        client = server.client()
        store = RedisStore(Settings(redis_url=server.url))
        for name, value in config.items():
            client.config_set(name, value)
        with pytest.raises(StoreError, match=said):
            store.apply(batch(1, ["scan"]))
        if "maxmemory" in config:
            assert client.keys() == []
            client.config_set("maxmemory", "0")
            store.apply(batch(1, ["scan"]))
            assert store.read().tasks["scan"].counts["count"] == 1
    finally:
        server.stop()


@pytest.mark.smoke
def test_an_absent_server_is_a_store_error_that_names_it() -> None:
    port = free_port()
    store = RedisStore(Settings(redis_url=f"redis://user:sesame@127.0.0.1:{port}/2"))
    with pytest.raises(StoreError, match=f"redis://127.0.0.1:{port}/2") as caught:
        store.read()
    assert "sesame" not in str(caught.value)


@pytest.mark.smoke
def test_a_user_without_the_rights_is_told_where_they_are_listed(redis_url: str, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL SETUSER", "narrow", "on", "nopass", "~*", "+@all", "-hincrby")
    store = RedisStore(Settings(redis_url=redis_url.replace("://", "://narrow:any@")))
    with pytest.raises(StoreError, match=r"docs/redis-schema\.md has the rights"):
        store.apply(batch(1, ["scan"]))
