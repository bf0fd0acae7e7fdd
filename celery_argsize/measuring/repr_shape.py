"""The shape of the whole repr where Celery cut it: its length, its levels, what makes it slow.

The repr is not written, as saferepr takes quadratic time: the walk counts it. Its
length is exact for a value that came as JSON, with two exceptions. An int key that
came as text adds 2 characters. A tuple of one member that came as a list takes 1
away, unless the header shows it.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.measuring.foreign import add_reprs
from celery_argsize.measuring.walk import Figures

if TYPE_CHECKING:
    from celery_argsize.measuring.json_size import Walked

#: Signs in a header of what JSON does not show: objects, and tuples of one member.
_ODD: Final = re.compile(r"[ (\[{]<|,\)(?!$)")


class Shape(NamedTuple):
    """The repr that would be sent if nothing were cut, and the one that was sent."""

    need: int
    """Its length in characters: the limit with which
    saferepr cuts nothing by size."""
    levels: int
    """Nested containers, the part itself included: the ``task_repr_maxlevels``
    with which nothing is cut by depth."""
    bytes: int
    """Its length in UTF-8: what AMQP brokers carry."""
    escaped: int
    """Its length as a text in JSON (``json.dumps``, ASCII):
    what other brokers carry."""
    sent_bytes: int
    """The length in UTF-8 of the repr that was sent."""
    sent_escaped: int
    """The length as a text in JSON of the repr that was sent."""
    commas: int
    """Separators between members."""
    keys: int
    """Dict items."""
    containers: int
    """Lists, tuples, dicts and sets, the part itself included."""
    chain_steps: int
    """Estimate of what makes saferepr quadratic: it chains iterators, and each
    container adds a step for every container opened before it in the same one."""


def measure_shape(walked: Walked, header: str) -> Shape | None:
    """The shape of the repr of what was *walked* through, of which *header* was sent.

    ``None`` if it has no JSON form, or an object in it has no repr.
    """
    if walked.figures is None or walked.size is None:
        return None
    try:
        figures = add_reprs(Figures(*walked.figures), walked.aside)
    except Exception:  # noqa: BLE001 - objects' own code may raise anything
        return None
    more = figures.singles if _is_odd(header) else is_tuple_of_one(walked.value, header)
    return Shape(
        figures.need + more,
        figures.levels,
        figures.need + more + walked.size.bytes - walked.size.chars,
        figures.escaped + more,
        len(header) if header.isascii() else len(header.encode("utf-8", "surrogatepass")),
        len(encode_basestring_ascii(header)) - 2,
        figures.commas,
        figures.keys,
        figures.containers,
        figures.chain_steps,
    )


def is_tuple_of_one(value: object, header: str) -> bool:
    """Whether *value* came as ``[1]``, and was sent as ``(1,)``."""
    return type(value) is list and len(value) == 1 and header.startswith("(")


def _is_odd(header: str) -> bool:
    """Whether *header* shows, outside texts, what JSON does not."""
    if "<" not in header and header.find(")") in {-1, len(header) - 1}:
        return False
    return _ODD.search(outside_quotes(header)) is not None


def outside_quotes(header: str) -> str:
    """*header* with each text replaced by one quote."""
    return "'".join(header.replace("\\'", "").split("'")[::2])
