"""The lines of tests/matrix.txt go with the other files that name versions, and are chosen as people ask for them."""

from __future__ import annotations

import matrix
import pytest
from support.servers import ROOT

LINES = matrix.lines()


def test_the_newest_is_what_everything_else_is_tried_with() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {f"{name}=={version}" for name, version in LINES[-1].pins.items()} <= set(pinned)


def test_the_oldest_is_the_first_that_is_allowed_and_each_release_since_is_there() -> None:
    assert f'"celery[redis]>={LINES[0].celery[:-2]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    releases = [tuple(map(int, line.celery.split("."))) for line in LINES]
    assert releases == sorted(releases)
    assert LINES[0].celery.endswith(".0")
    assert {release[:2] for release in releases} == {(5, minor) for minor in range(3, releases[-1][1] + 1)}
    assert {line.pins["redis"].partition(".")[0] for line in LINES} == {"5", "6", "7", "8"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], LINES),
        (["newest", "5.3"], [LINES[0], LINES[-1]]),
        (["oldest", "5.3.0"], LINES[:1]),
        (["5.6"], [line for line in LINES if line.celery.startswith("5.6.")]),
    ],
)
def test_lines_are_chosen_by_version(wanted: list[str], found: list[matrix.Line]) -> None:
    assert matrix.choose(LINES, wanted) == found


@pytest.mark.parametrize("wanted", ["5.2", "6", "5.3.", "new"])
def test_what_is_not_there_is_named(wanted: str) -> None:
    with pytest.raises(ValueError, match=f"no Celery '{wanted}'"):
        matrix.choose(LINES, [wanted, "5.3"])


def test_a_line_has_its_own_versions_and_no_others_of_the_same() -> None:
    texts = LINES[0].constraints().splitlines()
    assert "celery==5.3.0" in texts
    assert "celery==5.7.0" not in texts
    names = [text.partition("==")[0].lower() for text in texts if "==" in text and ";" not in text]
    assert len(names) == len(set(names))
    assert "pytest" in names
