"""A process stopped at any instruction of an update leaves counters from before it or from after it, nothing between.

A child is single-stepped with ptrace in the compiled build; the pure build
is looked at before each of its opcodes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import random
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from celery.utils.saferepr import saferepr
from support.counting import count, end_of, fork, read

from celery_argsize.figures.counters import Rules
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.measuring.walk import compiled
from celery_argsize.worker import region as region_module
from celery_argsize.worker.region import REDO, UNSETTLED, UPDATES, Region
from celery_argsize.worker.shared_counters import Reader, SharedCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

RULES: Final = Rules(1024, (128, 1024, 4096))
_TRACE_ME, _CONTINUE, _SINGLE_STEP = 0, 7, 9
_REFUSED: Final = 77

SHAPE: Final = Shape(5000, 30, 7, 6, 5, 4, 3, 2, 1, 9)
CUT: Final = Part(Size(5000, 9000), "size", 1030, 0, 1030, SHAPE)
#: The run that is being counted. Most of its figures differ from those of the run before it.
RUN: Final = Measurement("scan", "id", CUT, CUT, 1.5)
SMALL: Final = Measurement("scan", "id", Part(Size(9, 9), "intact", 9), Part(Size(0, 0), "intact", 2), 1.5)
CHANGES: Final = RULES.layout.changes(RUN.args, RUN.kwargs)
WHOLE: Final = (["å" * 700, [1, 2]], "('" + "å" * 700 + "', [1, 2])", {"n": 1}, "{'n': 1}")
LARGE_ARGS, LARGE_KWARGS = (["å" * 40] * 40, {"word": "x" * 1500, "others": [1, 2]})
TRUNCATED: Final = (LARGE_ARGS, saferepr(tuple(LARGE_ARGS), 1024), LARGE_KWARGS, saferepr(LARGE_KWARGS, 1024))


def update(region: Region) -> None:
    region.update(RUN.task, CHANGES)


def count_whole(region: Region) -> None:
    assert region.count("scan", *WHOLE) != UNSETTLED


def count_truncated(region: Region) -> None:
    assert region.count("scan", *TRUNCATED) != UNSETTLED


@dataclass(frozen=True)
class State:
    """What the main process, and what the next owner of the region, make of a copy of it."""

    read: dict[str, tuple[dict[str, int], dict[str, int]]]
    words: list[int]


def copied(memory: bytes) -> Region:
    view = memoryview(mmap.mmap(-1, len(memory)))
    view[:] = memory
    return Region(view, RULES, 1)


def recovered(memory: bytes) -> State:
    """The state in *memory*, if its process never went on."""
    region = copied(memory)
    read = {
        name: (dict(stats.counts), {field: extreme.value for field, extreme in stats.maxima.items()})
        for name, stats in Reader(region, RULES).differences()
    }
    assert bytes(region.words) == memory, "the reader writes nothing"
    region = copied(memory).claim()
    again = {
        name: (dict(stats.counts), {field: extreme.value for field, extreme in stats.maxima.items()})
        for name, stats in Reader(region, RULES).differences()
    }
    assert read == again, "the main process and the next owner see the same"
    words = region.words.tolist()
    assert words[UPDATES + 1] == 0
    return State(read, words[REDO + 2 * region_module.MAX_CHANGES :])


class Watch:
    """Looks at the memory of a region whenever it may have changed."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._last = bytes(region.words)
        self.before = recovered(self._last)
        #: Whether each different content of the memory meant the state after the update.
        self.states: list[State] = []

    @property
    def begun(self) -> bool:
        """Whether the update has written anything."""
        return bool(self.states)

    def look(self) -> None:
        memory = bytes(self._region.words)
        if memory != self._last:
            self._last = memory
            self.states.append(recovered(memory))

    def check(self, before: int, after_it: int) -> None:
        """At least *before* steps left the state before, and then *after_it* steps the state after."""
        after = self.states[-1]
        assert after != self.before
        assert after.read["scan"][0]["count"] == self.before.read["scan"][0]["count"] + 1
        place = self.states.index(after)
        assert self.states == [self.before] * place + [after] * (len(self.states) - place)
        assert place >= before, "the record was written before anything else"
        assert len(self.states) - place >= after_it, "and then the changes were made"


@pytest.fixture(params=["same epoch", "fresh epoch"])
def counters(request: pytest.FixtureRequest) -> Iterator[SharedCounters]:
    """Counters in which one run of the task was counted."""
    made = SharedCounters(RULES, 1, 1)
    assert end_of(fork(lambda: count(made, RULES, SMALL))) == 0
    if request.param == "fresh epoch":
        made.begin_epoch()
    yield made
    made.close()


# -- the compiled build ------------------------------------------------------------------------------------------------


class Stepped:
    """A child that is stopped after each instruction."""

    def __init__(self, body: Callable[[], Callable[[], None]]) -> None:
        """*body* gives what the child does from the first step on."""
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._ptrace.restype = ctypes.c_long

        def child() -> None:
            act = body()
            if self._ptrace(_TRACE_ME, 0, None, None):
                os._exit(_REFUSED)
            os.kill(os.getpid(), signal.SIGSTOP)
            act()
            os.kill(os.getpid(), signal.SIGSTOP)

        self.pid = fork(child)
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status):
            assert os.waitstatus_to_exitcode(status) == _REFUSED
            assert not os.environ.get("CI"), "ptrace is refused"
            pytest.skip("ptrace is refused")

    def step(self) -> bool:
        """Run one instruction. ``False``: the child has done all that it had to do."""
        assert self._ptrace(_SINGLE_STEP, self.pid, None, None) == 0
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSTOPPED(status)
        return os.WSTOPSIG(status) != signal.SIGSTOP

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert end_of(self.pid) == -signal.SIGKILL


def counting(counters: SharedCounters, act: Callable[[Region], None]) -> Stepped:
    """A child that claims the region, and then does *act*."""

    def body() -> Callable[[], None]:
        counters.after_fork()
        region = counters.region()
        assert region is not None
        assert region.words.obj is counters._regions[0].words.obj
        return lambda: act(region)

    return Stepped(body)


needs_compiled = pytest.mark.skipif(
    compiled is None or sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"},
    reason="single-steps the compiled build on Linux",
)


@needs_compiled
@pytest.mark.parametrize(("act", "changes"), [(count_whole, 20), (count_truncated, 30), (update, 30)])
def test_a_process_stopped_at_any_instruction_has_counted_all_of_a_run_or_nothing(
    counters: SharedCounters, act: Callable[[Region], None], changes: int
) -> None:
    child = counting(counters, act)
    watch = Watch(counters._regions[0])
    try:
        while child.step():
            watch.look()
    finally:
        child.kill()
    watch.check(changes, changes)


@needs_compiled
@pytest.mark.slow
def test_a_process_killed_anywhere_in_an_update_leaves_exact_counters_to_the_next(counters: SharedCounters) -> None:
    region, rng = counters._regions[0], random.Random(16)
    child = counting(counters, update)
    start, steps, first = bytes(region.words), 0, 0
    while child.step():
        steps += 1
        first = first or steps * (bytes(region.words) != start)
    child.kill()
    runs, seen = 2, read(counters).tasks["scan"]
    assert seen.counts["count"] == runs
    outcomes = set()
    for _ in range(50):
        stop, child = rng.randrange(steps - first), counting(counters, update)
        before = bytes(region.words)
        while bytes(region.words) == before:
            assert child.step()
        while stop and child.step():
            stop -= 1
        child.kill()
        assert end_of(fork(lambda: _count_another(counters))) == 0
        seen.merge(*(stats for _, stats in counters.differences()))
        assert seen.counts["count"] - runs in {1, 2}
        outcomes.add(seen.counts["count"] - runs)
        runs = seen.counts["count"]
        # each run adds the same to every figure, so that one torn sum would show
        assert seen.counts["args.chars"] - 9 == 5000 * (runs - 1)
        assert seen.counts["kwargs.cut_keys"] == SHAPE.keys * (runs - 1)
        assert seen.counts["args.chars_le.+Inf"] == seen.counts["truncated"] == runs - 1
    assert outcomes == {1, 2}, "some were killed before the update counted, some after"


def _count_another(counters: SharedCounters) -> None:
    counters.after_fork()
    count(counters, RULES, RUN)


# -- the pure build ----------------------------------------------------------------------------------------------------


def codes_of(module: Any) -> set[CodeType]:
    return {function.__code__ for function in vars(module.Region).values() if hasattr(function, "__code__")}


def test_an_exception_at_any_opcode_of_the_pure_build_has_counted_all_of_a_run_or_nothing(
    counters: SharedCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_module, "compiled", None)
    region, other = counters.region(), SharedCounters(RULES, 1).region()
    assert region is not None
    assert other is not None
    watch, codes, before = Watch(region), codes_of(region_module), sys.gettrace()

    def look(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        sys.settrace(None)
        watch.look()
        sys.settrace(look)
        return look

    sys.settrace(look)
    try:
        update(other)  # Python 3.13 shows the opcodes of a function from its second call on
        update(region)
    finally:
        sys.settrace(before)
    watch.look()
    watch.check(1, 30)  # the record is written at once
