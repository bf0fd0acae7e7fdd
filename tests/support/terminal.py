"""A terminal for tests: a real pty with a program in it, and what its screen shows by now."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from celery_argsize.words import width
from support.servers import APPS, stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Runs a command with its stdin as its controlling terminal, which is what makes Ctrl-C a signal. No signal is ignored:
#: what a shell starts in the background ignores SIGINT, and so would all that pytest starts then.
_CONTROLLED = """
import fcntl, os, signal, sys, termios
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
    signal.signal(number, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Screen(NamedTuple):
    """What a person would see."""

    lines: list[str]
    cursor: bool = True
    alternate: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def as_it_was(self) -> bool:
        """Whether the terminal is in the state that it was in at first."""
        return self.cursor and not self.alternate


def drawn(sent: str, height: int, columns: int) -> Screen:
    """What a terminal of that size shows after *sent*. It refuses codes that ``watch`` does not send."""
    lines: list[list[str]] = [[]]
    modes = {"?25": True, "?1049": False}
    row = column = 0
    behind: tuple[list[list[str]], int, int] = [[]], 0, 0
    for match in _TOKEN.finditer(sent):
        number, letter, char = match.groups()
        if char == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        elif char == "\r":
            column = 0
        elif char is not None:
            lines[row] += [" "] * (column - len(lines[row]))
            lines[row][column : column + width(char)] = [char, ""][: width(char)]  # a wide one takes two places
            column += width(char)
        elif letter == "H":
            row = column = 0
        elif letter in "hl":
            assert number in modes
            modes[number] = letter == "h"
            if number == "?1049":  # the alternate screen is empty at first; behind it, the other one stays
                (lines, row, column), behind = behind, (lines, row, column)
                if letter == "h":
                    lines, row, column = [[]], 0, 0
        else:
            assert letter == "m", match[0]
    return Screen(["".join(line[:columns]).rstrip() for line in lines[:height]], modes["?25"], modes["?1049"])


class Terminal:
    """A pty of 24 lines of 100 places, unless resized, and a program that runs in it."""

    def __init__(self, *command: str, env: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()
        self._sent = b""
        self.resize(24, 100)
        fixed = {"COLUMNS", "LINES"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLED, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=APPS,
            env={"TERM": "xterm", **{name: value for name, value in env.items() if name not in fixed}},
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, lines: int, columns: int) -> None:
        self._size = lines, columns
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    @property
    def sent(self) -> str:
        """All that the program wrote so far."""
        while select.select([self._ours], [], [], 0)[0]:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # the program has ended
                break
            self._sent += chunk
        return self._sent.decode(errors="replace")

    @property
    def screen(self) -> Screen:
        return drawn(self.sent, *self._size)

    def wait_for(self, text: str) -> Screen:
        """Wait until *text* is on the screen."""

        def seen() -> Screen | None:
            screen = self.screen
            if text not in screen.text and self.process.poll() is not None:
                message = f"ended with {self.process.returncode}:\n{self.sent}"
                raise AssertionError(message)
            return screen if text in screen.text else None

        try:
            screen: Screen = wait_until(seen)
        except pytest.fail.Exception:
            pytest.fail(f"{text!r} is not on the screen:\n{self.screen.text}")
        return screen

    def end(self, timeout: float = 20) -> int:
        """Wait for the end of the program, and return its exit code."""
        wait_until(lambda: (self.sent, self.process.poll())[1] is not None, timeout=timeout, what="the end")
        return int(self.process.returncode)

    def close(self) -> None:
        stop(self.process, signal.SIGKILL)
        os.close(self._ours)


@contextmanager
def terminal(*command: str, env: dict[str, str]) -> Iterator[Terminal]:
    """Run *command* in a terminal, for as long as the block lasts."""
    opened = Terminal(*command, env=env)
    try:
        yield opened
    finally:
        opened.close()
