"""Text in columns: how wide a terminal shows it, and what gives way where there is no room."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from celery_argsize.words import pad, printable, shorten, table, width

names = st.text(st.sampled_from("ab.é任務🎵\u0301\u200d"), max_size=30)


@pytest.mark.parametrize(
    ("text", "places"), [("", 0), ("music.scan", 10), ("é", 1), ("e\u0301", 1), ("任務", 4), ("🎵", 2), ("a\u200db", 2)]
)
def test_wide_characters_take_two_places_and_accents_none(text: str, places: int) -> None:
    assert width(text) == places


@given(names, st.integers(0, 40))
def test_what_is_shortened_fits_and_what_fits_is_not_shortened(text: str, places: int) -> None:
    short = shorten(text, places)
    assert width(short) <= places
    assert (short == text) == (width(text) <= places)
    assert width(short) >= min(width(text), places) - 2, "at most a wide character at either side is lost"


def test_a_name_is_shortened_in_its_middle() -> None:
    assert shorten("music.library.scan", 11) == "music….scan"


def test_columns_are_aligned_as_a_terminal_shows_them() -> None:
    lines = table([("Task", "Runs"), ("任務", "1"), ("scan", "1,000")], right=True)
    assert lines == ["  Task   Runs", "  任務      1", "  scan  1,000"]
    assert pad("任", 3, right=True) == " 任"


@given(st.text())
def test_nothing_that_is_shown_moves_the_cursor_or_hides_text(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


def test_an_escape_sequence_is_spelled_out() -> None:
    assert printable("\x1b[2Jscan\u202e\ud800") == r"\x1b[2Jscan\u202e\ud800"
