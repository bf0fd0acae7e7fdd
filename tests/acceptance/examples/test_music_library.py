"""Tests of examples/music_library as its README says to run it: with honcho, a worker for each queue, and Beat."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from support.examples import running_example
from support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.examples import Example

APP = "music_library.app"
NEVER = "86400"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The running example, with settings other than the defaults. Beat does not send scans."""
    settings = {
        "SCAN_EVERY": NEVER,
        "EXTRACT_CONCURRENCY": "2",
        "CELERY_POOL_LIMIT": "3",
        "CELERY_MAX_CONNECTIONS": "7",
    }
    with running_example("music_library", tmp_path_factory.mktemp("music"), **settings) as example:
        yield example
        example.stop(signal.SIGTERM)


def count_runs(library: Example, folder: str, albums: int, batch_size: int) -> int:
    code = f"from music_library.catalog import count_runs; print(count_runs({folder!r}, {albums}, {batch_size}))"
    return int(library.run("python", "-c", code))


@pytest.mark.slow
def test_a_scan_has_all_its_files_inserted_each_step_by_the_worker_of_its_own_queue(library: Example) -> None:
    expected = sum(library.runs().values()) + count_runs(library, "/music/Vinyl", 70, 60)
    library.run("celery", "-A", APP, "call", "scan", "--args", '["/music/Vinyl", 70]', "--kwargs", '{"batch_size": 60}')
    wait_until(lambda: sum(library.runs().values()) >= expected, what="all inserts")
    report = json.loads(library.run("celery", "-A", APP, "argsize", "report", "--json"))
    runs = {name: task["count"] for name, task in report["tasks"].items()}
    assert sum(runs.values()) == expected
    assert {worker: stats["total"] for worker, stats in library.inspect(APP, "stats").items()} == {
        "scan": {"scan": runs["scan"]},
        "extract": {"extract_metadata_batch": runs["extract_metadata_batch"]},
        "insert": {"insert": runs["insert"]},
    }
    assert report["tasks"]["extract_metadata_batch"]["args"]["max"] > 1024


def test_each_queue_has_a_worker_with_a_concurrency_of_its_own(library: Example) -> None:
    queues = library.inspect(APP, "active_queues")
    assert {worker: [queue["name"] for queue in taken] for worker, taken in queues.items()} == {
        "scan": ["scan"],
        "extract": ["extract"],
        "insert": ["insert"],
    }
    pools = {worker: stats["pool"]["max-concurrency"] for worker, stats in library.inspect(APP, "stats").items()}
    assert pools == {"scan": 1, "extract": 2, "insert": 1}


def test_its_workers_keep_within_their_connections_and_their_memory(library: Example) -> None:
    for conf in library.inspect(APP, "conf").values():
        assert conf["broker_pool_limit"] == 3
        assert conf["broker_transport_options"]["max_connections"] == 7
        assert conf["worker_prefetch_multiplier"] == 1
        assert conf["worker_max_tasks_per_child"] == 500
        assert conf["worker_max_memory_per_child"] * 1024 == 500 * 1024 * 1024


@pytest.mark.slow
def test_beat_has_a_folder_scanned_again_and_again(library: Example) -> None:
    before = library.runs()
    with library.one_more("beat", SCAN_EVERY="0.5"):
        wait_until(lambda: library.runs().get("scan", 0) >= before.get("scan", 0) + 2, what="two scans")
    for_each = count_runs(library, "/music/Vinyl", 70, 12)

    def all_of_each() -> bool:
        runs = library.runs()
        scans = runs["scan"] - before.get("scan", 0)
        return sum(runs.values()) == sum(before.values()) + scans * for_each

    wait_until(all_of_each, what="all inserts")
    assert "Traceback" not in library.log
