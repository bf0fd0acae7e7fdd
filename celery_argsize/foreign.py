"""JSON of what orjson does not take, by json and kombu's encoder: the definition of a size; where foreign code runs.

Pure. An argument may be an object with code of its own (pickle and YAML bring such). That code is asked only where
Celery's own encoding would ask it, and what it yields is bounded: too much is a ``ForeignError``, and such a value
unmeasurable. Code that does not come back at all cannot be stopped from here.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from kombu.utils.json import JSONEncoder as _KombuEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ForeignError", "encode_exactly", "kombu_form"]

#: What the code of foreign objects may yield in one encoding: objects and members, all told.
MOST_YIELDED: Final = 100_000

#: Types that kombu writes without asking anybody else's code.
_KNOWN: Final = frozenset({bytes, datetime, date, time, Decimal, UUID})
#: How containers iterate that leave it to Python: json asks others for all that they yield, at once.
_USUAL: Final = (dict.items, OrderedDict.items, list.__iter__, tuple.__iter__)
_kombu: Final = _KombuEncoder().default


class ForeignError(Exception):
    """A foreign object yields too much, or what it should not."""


def kombu_form(obj: object) -> object:
    """What kombu writes for *obj*, of a type that JSON lacks; a set as an array, which only pickle or YAML bring.

    Raises:
        ForeignError: that is for the type's own code to say, see ``encode_exactly``.
    """
    kind = type(obj)
    if kind in _KNOWN:
        return _kombu(obj)
    if kind is set or kind is frozenset:
        return [*obj]  # type: ignore[misc]
    raise ForeignError


def encode_exactly(obj: object) -> str:
    """*obj* as compact JSON. Raises whatever encoding raises, and whatever the code of objects in it does."""
    encoder = _Encoder(ensure_ascii=False, separators=(",", ":"))
    try:
        marshal.dumps(obj)  # type: ignore[arg-type]  # a ValueError tells
    except ValueError:  # other types than JSON's are in it
        obj = encoder.tamed(obj)
    return encoder.encode(obj)


class _Encoder(_KombuEncoder):
    """kombu's encoder for one value, with sets and Enums as ``kombu_form`` has them.

    Types are looked at by ``type``: an object's ``__class__`` may lie.
    """

    _left = MOST_YIELDED

    def default(self, o: object) -> object:
        kind = type(o)
        if kind in _KNOWN:
            return super().default(o)
        self._take(1)
        if not hasattr(kind, "__json__"):
            if issubclass(kind, (set, frozenset)):
                return [*(set if issubclass(kind, set) else frozenset).__iter__(o)]  # type: ignore[arg-type]
            if issubclass(kind, Enum):
                return self.tamed(o.value)  # type: ignore[attr-defined]
        return self.tamed(super().default(o))

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ForeignError

    def tamed(self, obj: Any) -> Any:
        """*obj*, or the same with what containers yield by code of their own already taken, and bounded."""
        return self._tame(obj) if _is_wild(obj) else obj

    def _tame(self, obj: Any) -> Any:
        kind = type(obj)
        base, way = _container(kind)
        if base is None:
            return obj
        if base is dict and not dict.__len__(obj):  # then json asks for nothing
            return {}
        wild = way not in _USUAL
        members = iter(obj.items() if base is dict else obj) if wild else _members(base, obj)
        members = [*islice(members, self._left + 1 if wild else None)]
        if wild:
            self._take(len(members))
        if base is not dict:
            return [self._tame(member) for member in members]
        if not all(issubclass(type(item), tuple) for item in members):  # json takes no other pairs
            raise ForeignError
        return _Items([(key, self._tame(value)) for key, value in members])


class _Items(dict):  # type: ignore[type-arg]
    """A dict that json writes as just these items; a key may be among them twice."""

    def __init__(self, items: list[tuple[Any, Any]]) -> None:
        super().__init__(items=None)  # json asks an empty one for nothing
        self._items = items

    def items(self) -> Any:
        return self._items


def _container(kind: type) -> tuple[Any, Any]:
    """The container that *kind* is, if any, and how it iterates."""
    if issubclass(kind, dict):
        return dict, kind.items
    if issubclass(kind, (list, tuple)):
        return list if issubclass(kind, list) else tuple, kind.__iter__
    return None, None


def _members(base: Any, obj: Any) -> Iterator[Any]:
    members: Iterator[Any] = iter(dict.items(obj)) if base is dict else base.__iter__(obj)
    return members


def _is_wild(obj: Any) -> bool:
    """Whether a container in *obj* says itself what is in it."""
    todo, seen = [obj], set()
    while todo:
        found = todo.pop()
        base, way = _container(type(found))
        if base is None or id(found) in seen:
            continue
        if way not in _USUAL:
            return True
        seen.add(id(found))
        todo += dict.values(found) if base is dict else base.__iter__(found)
    return False
