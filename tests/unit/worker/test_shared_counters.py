"""Processes and threads count in shared memory, and the main process reads it: with real forks, and in both builds."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
from support.counting import count, end_of, fork, read

from celery_argsize.figures.counters import OTHER, Rules, Tally
from celery_argsize.figures.layout import ERRORS, LARGE_PART, NEW_MAXIMUM, Changes
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import EMPTY, NAME_BYTES, Measurement, Part
from celery_argsize.measuring.walk import compiled
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.worker import region as region_module
from celery_argsize.worker.region import OWNER, PENDING, Region
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RULES: Final = Rules(1024, DEFAULT_BUCKETS)
RUNS: Final = 300
NOT_ALLOWED: Final = 77


def measurement(number: int, name: str = "scan") -> Measurement:
    return Measurement(name, f"id-{number}", Part(Size(number, number)), Part(Size(0, 0), "size"), 1.5)


def expected(*measurements: Measurement) -> Tally:
    tally = Tally(1000)
    for run in measurements:
        tally.add(run, RULES)
    return tally


def figures(tally: Tally) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Counts and maxima by task name. Which run a maximum is of goes as a note."""
    return {
        name: (
            {field: number for field, number in stats.counts.items() if number},
            {field: extreme.value for field, extreme in stats.maxima.items() if extreme.value},
        )
        for name, stats in tally.tasks.items()
    }


def count_all(counters: SharedCounters, number: int) -> None:
    for size in range(number):
        count(counters, RULES, measurement(size))


@pytest.fixture(params=["compiled", "pure"], autouse=True)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs in both builds."""
    if request.param == "pure":
        monkeypatch.setattr(region_module, "compiled", None)
    elif compiled is None:
        pytest.skip("the compiled module is not there, or not wanted")
    name: str = request.param
    return name


@pytest.fixture
def counters() -> Iterator[SharedCounters]:
    made = SharedCounters(RULES, 100, 6)
    yield made
    made.close()


def in_child(counters: SharedCounters, body: Callable[[Region | None], object]) -> int:
    """Run *body* with the region of a forked child. The process id."""

    def child() -> None:
        counters.after_fork()
        body(counters.region())

    return fork(child)


@contextmanager
def living(number: int, body: Callable[[], bytes]) -> Iterator[tuple[list[int], bytes]]:
    """*number* children that live on after *body*. Their process ids, and what *body* gave in each: a byte."""
    ready = os.pipe()

    def child() -> None:
        os.write(ready[1], body())
        signal.pause()

    pids, seen = [fork(child) for _ in range(number)], b""
    try:
        while len(seen) < number:
            seen += os.read(ready[0], number)
        yield pids, seen
    finally:
        for fd in ready:
            os.close(fd)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            end_of(pid)


def counts_in(counters: SharedCounters, name: str = "other") -> Callable[[], bytes]:
    """For ``living``: counts a run, and gives whether there was a region."""

    def body() -> bytes:
        counters.after_fork()
        if counters.region() is None:
            return b"-"
        count(counters, RULES, measurement(1, name))
        return b"+"

    return body


# -- processes ---------------------------------------------------------------------------------------------------------


def test_children_count_side_by_side_and_a_killed_one_loses_nothing(counters: SharedCounters) -> None:
    def child(_: object) -> None:
        for number in range(RUNS):
            count(counters, RULES, measurement(number))
        os.kill(os.getpid(), signal.SIGKILL)

    pids = [in_child(counters, child) for _ in range(6)]
    assert {end_of(pid) for pid in pids} == {-signal.SIGKILL}
    found = read(counters)
    assert figures(found) == figures(expected(*map(measurement, [*range(RUNS)] * 6)))
    assert found.tasks["scan"].maxima["args.max_chars"].value == RUNS - 1
    assert figures(read(counters)) == {}, "each run is read once"


def test_the_main_process_reads_exactly_while_children_count(counters: SharedCounters) -> None:
    def child(_: object) -> None:
        for number in range(10 * RUNS):
            count(counters, RULES, measurement(number, f"task {number % 7}"))

    pids = {in_child(counters, child) for _ in range(4)}
    found, reads = Tally(1000), 0
    while pids:
        found.merge(counters.differences())
        reads += 1
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in pids:
            assert status == 0
            pids.remove(pid)
    found.merge(counters.differences())
    runs = [measurement(number, f"task {number % 7}") for number in range(10 * RUNS)]
    assert figures(found) == figures(expected(*runs * 4))
    assert reads > 1


def test_differences_are_what_came_since_the_last_call(counters: SharedCounters) -> None:
    for number in (5, 3, 9):
        count(counters, RULES, measurement(number))
        assert read(counters).tasks["scan"].counts["args.chars"] == number
    count(counters, RULES, measurement(4, "other"))
    assert {*read(counters).tasks} == {"other"}


def test_the_next_child_takes_over_a_region_with_its_names_and_goes_on(counters: SharedCounters) -> None:
    places = os.pipe()

    def child(number: int) -> None:
        counters.after_fork()
        region = counters.region()
        assert region is not None
        names = [f"task {place}" for place in range(number, -1, -1)]  # the next one meets them in another order
        for name in names:
            count(counters, RULES, measurement(number, name))
        os.write(places[1], f"{region.place('task 0')} ".encode())

    for number in range(5):
        assert end_of(fork(lambda number=number: child(number))) == 0  # type: ignore[misc]
    found = os.read(places[0], 1000).decode().split()
    assert len(found) == 5
    assert len({*found}) == 1, "a name keeps its place"
    for fd in places:
        os.close(fd)
    runs = [measurement(number, f"task {place}") for number in range(5) for place in range(number + 1)]
    assert figures(read(counters)) == figures(expected(*runs))
    assert sum(bool(region.words[OWNER]) for region in counters._regions) == 1


def test_a_thousand_children_one_after_another_need_one_region(counters: SharedCounters) -> None:
    for number in range(1000):
        assert end_of(in_child(counters, lambda _, number=number: count(counters, RULES, measurement(number)))) == 0  # type: ignore[misc]
    assert figures(read(counters)) == figures(expected(*map(measurement, range(1000))))
    assert sum(bool(region.words[OWNER]) for region in counters._regions) == 1


def test_more_processes_than_regions_get_none_and_the_others_are_exact() -> None:
    counters = SharedCounters(RULES, 10, 1)
    most = 1 + SharedCounters.SPARE
    with living(most, counts_in(counters)) as (pids, seen):
        assert seen == b"+" * most
        assert end_of(in_child(counters, lambda region: os._exit(7 if region is None else 1))) == 7
        assert read(counters).tasks["other"].counts["count"] == most
        os.kill(pids[3], signal.SIGKILL)
        os.waitid(os.P_PID, pids[3], os.WEXITED | os.WNOWAIT)
        assert end_of(in_child(counters, lambda _: count(counters, RULES, measurement(8)))) == 0, "there is room again"
    assert figures(read(counters)) == figures(expected(measurement(8)))
    counters.close()


def test_a_child_that_has_not_yet_begun_hides_no_other(counters: SharedCounters) -> None:
    """It has taken the first region, and another child the second."""

    def take() -> bytes:
        assert counters._file is not None
        return b"+" if counters._file.take(0) else b"-"

    with living(1, take) as (_, seen):
        assert seen == b"+"
        assert end_of(in_child(counters, lambda _: count(counters, RULES, measurement(5)))) == 0
        assert figures(read(counters)) == figures(expected(measurement(5)))


def test_a_child_of_a_child_counts_in_a_region_of_its_own(counters: SharedCounters) -> None:
    def child(_: object) -> None:
        pid = in_child(counters, lambda _: count_all(counters, RUNS))
        for number in range(RUNS):
            count(counters, RULES, measurement(number))
        assert end_of(pid) == 0

    assert end_of(in_child(counters, child)) == 0
    assert figures(read(counters)) == figures(expected(*map(measurement, [*range(RUNS)] * 2)))


def test_a_fork_of_a_process_that_counts_for_itself_leaves_its_figures_alone() -> None:
    """Memory is shared with it. ``install`` drops the recorder in such a child, and makes a new one if asked to."""
    counters = SharedCounters(RULES, 10)
    count(counters, RULES, measurement(1))

    def child() -> None:
        own = SharedCounters(RULES, 10)
        count(own, RULES, measurement(2, "of the child"))
        assert figures(read(own)) == figures(expected(measurement(2, "of the child")))

    assert end_of(fork(child)) == 0
    count(counters, RULES, measurement(3))
    assert figures(read(counters)) == figures(expected(measurement(1), measurement(3)))


def test_errors_are_counted_too(counters: SharedCounters) -> None:
    region = counters.region()
    assert region is not None
    for _ in range(3):
        region.update("scan", Changes({ERRORS: 1}, {}))
    assert read(counters).tasks["scan"].counts == {"errors": 3}


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_past_the_cap_count_with_other() -> None:
    counters = SharedCounters(RULES, 3)
    runs = [measurement(number, f"task {number % 5}") for number in range(50)]
    for run in runs:
        count(counters, RULES, run)
    named = [run._replace(task=run.task if run.task < "task 3" else OTHER) for run in runs]
    assert figures(read(counters)) == figures(expected(*named))


@pytest.mark.parametrize("name", ["", "n" * NAME_BYTES, "å" * (NAME_BYTES // 2), "x" * 5000, "a\nb", "\ud800"])
def test_any_name_is_read_as_it_is_cleaned(name: str) -> None:
    counters = SharedCounters(RULES, 3)
    for _ in range(2):
        count(counters, RULES, measurement(1, name))
    (found,) = read(counters).tasks.items()
    assert found[1].counts["count"] == 2
    assert len(found[0].encode()) <= NAME_BYTES
    assert found[0].startswith(name[:50].replace("\n", "").replace("\ud800", "")[:1])


# -- threads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _busy_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(number: int, body: Callable[[int], object]) -> None:
    """Run *body* in so many threads that begin at once."""
    barrier, failures = threading.Barrier(number), []

    def run(thread: int) -> None:
        barrier.wait()
        try:
            body(thread)
        except BaseException as exc:  # noqa: BLE001 - for the main thread
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.usefixtures("_busy_threads")
def test_threads_of_one_process_count_exactly_from_the_first_run_on() -> None:
    for _ in range(20):
        counters = SharedCounters(RULES, 100)
        together(8, lambda _, on=counters: count_all(on, 50))  # type: ignore[misc]
        assert figures(read(counters)) == figures(expected(*map(measurement, [*range(50)] * 8)))


@pytest.mark.usefixtures("_busy_threads")
def test_threads_that_all_add_names_at_once_count_exactly() -> None:
    for _ in range(10):
        counters = SharedCounters(RULES, 1000)

        def body(thread: int, on: SharedCounters = counters) -> None:
            for number in range(100):
                count(on, RULES, measurement(thread, f"task {(number + 13 * thread) % 100}"))

        together(8, body)
        runs = [measurement(thread, f"task {number}") for thread in range(8) for number in range(100)]
        assert figures(read(counters)) == figures(expected(*runs))


@pytest.mark.usefixtures("_busy_threads")
def test_a_thread_reads_exactly_while_others_count() -> None:
    counters, found, ended = SharedCounters(RULES, 100), Tally(1000), threading.Event()

    def keep_reading() -> None:
        while not ended.is_set():
            found.merge(counters.differences())

    reader = threading.Thread(target=keep_reading)
    reader.start()
    together(4, lambda _: count_all(counters, RUNS))
    ended.set()
    reader.join()
    found.merge(counters.differences())
    assert figures(found) == figures(expected(*map(measurement, [*range(RUNS)] * 4)))


def test_a_run_that_the_compiled_build_counts_itself_counts_the_same(build: str) -> None:
    if build == "pure":
        pytest.skip("its runs are measured in Python")
    counters = SharedCounters(RULES, 10)
    region = counters.region()
    assert region is not None
    together(4, lambda _: [region.count("scan", ["x" * n], f"['{'x' * n}']", {}, "{}") for n in range(RUNS)])
    stats = read(counters).tasks["scan"]
    assert stats.counts["count"] == 4 * RUNS
    assert stats.counts["args.chars"] == 4 * sum(number + 4 for number in range(RUNS))
    assert stats.counts["kwargs.count"] == 4 * RUNS


# -- spawned children, and no room -------------------------------------------------------------------------------------


def spawned(path: Path, number: int, *, names: int = 100) -> None:
    """What a spawned child does: it opens the file anew."""
    counters = SharedCounters(RULES, names, 2, path=str(path))
    for at in range(number):
        count(counters, RULES, measurement(at))


def test_a_spawned_child_counts_in_the_file(tmp_path: Path) -> None:
    counters = SharedCounters(RULES, 100, 2, path=str(tmp_path / "counters"))
    pids = [fork(lambda: spawned(tmp_path / "counters", RUNS)) for _ in range(3)]
    assert [end_of(pid) for pid in pids] == [0, 0, 0]
    assert figures(read(counters)) == figures(expected(*map(measurement, [*range(RUNS)] * 3)))
    counters.close()


def tiny_disk(folder: Path, size: int) -> None:
    """Mount a file system of *size* bytes on *folder*, which this process alone sees. Ends if that is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_users, recursive_private = 0x20000, 0x10000000, 0x4000 | 1 << 18
    user, group = os.getuid(), os.getgid()
    if libc.unshare(new_mounts | (new_users if user else 0)):
        os._exit(NOT_ALLOWED)
    if user:
        for file, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{file}", "w") as written:  # noqa: PTH123
                written.write(line)
    if libc.mount(None, b"/", None, recursive_private, None) or libc.mount(
        b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()
    ):
        os._exit(NOT_ALLOWED)


def succeeds(main: Callable[[], None]) -> None:
    """Run *main* in a child, and skip the test if that cannot mount a file system."""
    code = end_of(fork(main))
    if code == NOT_ALLOWED:
        pytest.skip("mounting is not allowed")
    assert code == 0


@pytest.fixture
def room_for_one(tmp_path: Path) -> Callable[[], tuple[SharedCounters, Path]]:
    """Counters in a file on a disk with room for one region, and a file that takes the rest."""

    def make() -> tuple[SharedCounters, Path]:
        size = Region.bytes_for(RULES, 100)
        tiny_disk(tmp_path, 2 * size + (2 + SharedCounters.SPARE) * mmap.PAGESIZE)
        others = tmp_path / "of others"
        counters = SharedCounters(RULES, 100, 2, path=str(tmp_path / "counters"))
        others.write_bytes(b"x" * (size // 2))
        return counters, others

    return make


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_full_disk_gives_no_region_and_no_sigbus(room_for_one: Callable[[], tuple[SharedCounters, Path]]) -> None:
    def main() -> None:
        counters, _ = room_for_one()
        with living(1, counts_in(counters)) as (_, seen):
            assert seen == b"+"
            refused = in_child(counters, lambda region: os._exit(7 if region is None else 1))
            assert end_of(refused) == 7
        assert figures(read(counters)) == figures(expected(measurement(1, "other")))

    succeeds(main)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_who_was_refused_keeps_no_region_from_others(room_for_one: Callable[[], tuple[SharedCounters, Path]]) -> None:
    def main() -> None:
        counters, others = room_for_one()
        with living(1, counts_in(counters)), living(1, counts_in(counters)) as (_, seen):
            assert seen == b"-"
            others.unlink()  # now there is room
            assert end_of(in_child(counters, lambda _: count(counters, RULES, measurement(2)))) == 0

    succeeds(main)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
def test_a_disk_that_is_full_at_the_start_is_an_error_there(tmp_path: Path) -> None:
    def main() -> None:
        tiny_disk(tmp_path, 4096)
        with pytest.raises(OSError, match="No space left"):
            SharedCounters(RULES, 100, 2, path=str(tmp_path / "counters"))

    succeeds(main)


# -- maxima ------------------------------------------------------------------------------------------------------------


def largest(counters: SharedCounters) -> int | None:
    stats = read(counters).tasks.get("scan")
    return stats.maxima["args.max_chars"].value if stats and "args.max_chars" in stats.maxima else None


def test_after_begin_epoch_maxima_are_those_of_later_runs(counters: SharedCounters) -> None:
    """Else the largest run before a reset would come back with the next run."""
    region = counters.region()
    assert region is not None
    count(counters, RULES, measurement(1000))
    assert largest(counters) == 1000
    counters.begin_epoch()
    assert largest(counters) is None, "nothing ran"
    count(counters, RULES, measurement(7))
    count(counters, RULES, measurement(5))
    assert largest(counters) == 7
    count(counters, RULES, measurement(9))
    assert largest(counters) == 9


def test_a_maximum_that_comes_between_a_read_and_the_next_epoch_is_not_lost(counters: SharedCounters) -> None:
    count(counters, RULES, measurement(10))
    assert largest(counters) == 10
    count(counters, RULES, measurement(1000))  # while the main process reads another region
    counters.begin_epoch()
    count(counters, RULES, measurement(5))
    assert largest(counters) == 1000


def test_a_thread_whose_update_another_one_makes_knows_what_its_own_run_tells(build: str) -> None:
    if build == "compiled":
        pytest.skip("the GIL keeps other threads out")
    counters = SharedCounters(RULES, 10)
    region = counters.region()
    assert region is not None
    huge, small = (RULES.layout.changes(measurement(n).args, EMPTY) for n in (5000, 5))
    region._busy.acquire()  # another thread counts
    told = region.update("scan", huge)
    region._busy.release()
    assert told & LARGE_PART
    assert told & NEW_MAXIMUM, "perhaps"
    assert region.update("scan", small) == 0, "not what the other one tells"
    assert read(counters).tasks["scan"].counts["count"] == 2


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_a_dead_child_that_left_an_update_does_not_slow_the_reading_of_each_slot(
    counters: SharedCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(own: Region | None) -> None:
        assert own is not None
        vars(region_module)["compiled"] = None
        for number in range(50):
            count(counters, RULES, measurement(number, f"task {number}"))
        vars(own)["_make"] = lambda _: None
        count(counters, RULES, measurement(50, "task 0"))

    assert end_of(in_child(counters, child)) == 0
    sleeps: list[float] = []
    monkeypatch.setattr("time.sleep", sleeps.append)
    assert sum(stats.counts["count"] for stats in read(counters).tasks.values()) == 51
    assert len(sleeps) == 1


def test_what_a_dead_child_left_half_made_is_read_once_and_is_then_nothing_new(counters: SharedCounters) -> None:
    region = counters._regions[0]

    def child(own: Region | None) -> None:
        assert own is not None
        count(counters, RULES, measurement(5))
        vars(region_module)["compiled"] = None
        vars(own)["_make"] = lambda _: None
        count(counters, RULES, measurement(8))
        assert own.words[PENDING]

    assert end_of(in_child(counters, child)) == 0
    assert region.words[PENDING]
    assert figures(read(counters)) == figures(expected(measurement(5), measurement(8)))
    assert [*counters.differences()] == [], "nobody counted meanwhile"
    assert end_of(in_child(counters, lambda _: count(counters, RULES, measurement(2)))) == 0
    assert not region.words[PENDING]
    assert read(counters).tasks["scan"].counts["args.chars"] == 2


def test_a_stopped_child_holds_up_nobody(counters: SharedCounters) -> None:
    with living(2, counts_in(counters, "scan")) as (pids, _):
        os.kill(pids[0], signal.SIGSTOP)
        os.waitpid(pids[0], os.WUNTRACED)
        begun = time.monotonic()
        assert read(counters).tasks["scan"].counts["count"] == 2
        assert end_of(in_child(counters, lambda _: count(counters, RULES, measurement(3)))) == 0
        assert read(counters).tasks["scan"].counts["count"] == 1
        assert time.monotonic() - begun < 10
