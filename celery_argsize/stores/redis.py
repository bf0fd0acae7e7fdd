"""The figures of an app in Redis, shared by all its workers: keys, scripts, errors in plain words.

The schema is documented in docs/redis-schema.md. Adding up happens in Redis, in one Lua call a batch (``apply.lua``),
which also knows the batches it has seen, so that sending one again is harmless.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from redis import exceptions

from celery_argsize.errors import ConfigError, SchemaError, StoreError
from celery_argsize.figures.counters import OTHER, Figures
from celery_argsize.figures.origins import Origins, Sighting
from celery_argsize.redis_url import safe_url
from celery_argsize.settings import with_app
from celery_argsize.stores.connection import connect, disconnect, explain, prepare
from celery_argsize.stores.fields import ALL_FIELDS, from_hash, to_argv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Batch
    from celery_argsize.stores.connection import Client

#: Version of what is in Redis (docs/redis-schema.md).
SCHEMA: Final = 1

#: What apply.lua answers where nothing was known of the app.
FIRST: Final = 2

#: Seconds for which a writer's last batch is remembered after it last wrote: how late a retry may come.
WRITER_TTL: Final = 24 * 60 * 60

#: Seconds to wait for ``wait_replicas`` replicas to confirm a batch.
WAIT_TIMEOUT: Final = 1.0

#: Seconds for which a host that sends messages is remembered after its last one, and how many are.
ORIGIN_TTL: Final = 7 * 24 * 60 * 60
MAX_ORIGINS: Final = 1000


class RedisStore:
    """Keeps the figures of one app in Redis, over one connection that opens when first used."""

    shared = True

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        if settings.redis_url is None and client is None:
            message = "redis_url is not set; give the URL of the Redis that the workers use"
            raise ConfigError(message)
        self._settings = settings
        self._client = client or connect(settings)
        self._owns_client = client is None
        self._base = settings.base
        self._registered = False

    @property
    def where(self) -> str:
        """The server's URL, without secrets."""
        return safe_url(self._settings.redis_url or "redis://")

    @cached_property
    def _scripts(self) -> dict[str, Any]:
        """The Lua scripts: read once, and here rather than in a later thread."""
        folder = resources.files("celery_argsize.stores")
        return {
            name: self._client.register_script((folder / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("apply", "origins", "read", "reset")
        }

    def prepare(self) -> None:
        """Load what writing will need, files and modules; nothing is connected to.

        A fork while a thread imports would leave that import locked in the child for ever: before the flusher's thread
        connects for the first time, what it would import by then is imported here.
        """
        assert self._scripts  # noqa: S101 - for its effect: the files are read
        prepare()

    def apply(self, batch: Batch, failed: int = 0) -> None:
        """Add *batch*, unless it was added before; *failed* is how often its writer failed to since it last could.

        Raises:
            StoreError: it could not be, or no answer came; send the same batch again.
        """
        settings, base = self._settings, self._base
        keys = [base + "meta", base + "names", f"{base}writer:{batch.writer}", self._task_key(OTHER), base + "origins"]
        argv: list[Any] = [SCHEMA, batch.sequence, time.time(), settings.max_task_names, WRITER_TTL]
        argv += (len(batch.tasks), MAX_ORIGINS, Origins.MAX_SIGHTINGS, ORIGIN_TTL, self._origin_key(""))
        argv.append(failed)
        keys += map(self._task_key, batch.tasks)
        argv += batch.tasks
        for stats in batch.tasks.values():
            argv += to_argv(stats)
        keys += map(self._origin_key, batch.origins)
        for host, sightings in batch.origins.items():
            argv += (host, len(sightings), *sightings)
            argv += (f"{sighting.value} {sighting.time}" for sighting in sightings.values())
        with self._errors("write to"):
            # Before the script, so that an error always means: not counted, or counted once it is sent again.
            if new := not self._registered:
                self._register()
            if self._scripts["apply"](keys=keys, args=argv) == FIRST and not new:  # Redis has lost all it had
                self._register()
            if settings.wait_replicas:
                self._wait_for_replicas()

    def _register(self) -> None:
        self._client.sadd(f"{self._settings.key_prefix}:apps", self._settings.app_name)
        self._registered = True

    def _begin_anew(self) -> None:
        """Have the next attempt connect, so that it finds a primary that has taken over, and list the app there."""
        self._registered = False
        disconnect(self._client)

    def _wait_for_replicas(self) -> None:
        """Have what was written last confirmed, or raise: then it is sent again, perhaps to a new primary."""
        wanted = self._settings.wait_replicas
        confirmed = self._client.wait(wanted, round(WAIT_TIMEOUT * 1000))
        if confirmed < wanted:
            self._begin_anew()
            message = (
                f"cannot be sure of what was written to Redis at {self.where}: {confirmed} of wait_replicas = {wanted} "
                f"replicas confirmed it within {WAIT_TIMEOUT:g} s; are they running?"
            )
            raise StoreError(message)

    def read(self, fields: tuple[str, ...] = ALL_FIELDS) -> Figures:
        """All figures, as of one moment, in one round trip; only those *fields*, where some are given.

        Raises:
            StoreError: they could not be read.
        """
        with self._errors("read from"):
            meta, *tasks = self._scripts["read"](
                keys=[self._base + "meta", self._base + "names"], args=[self._task_key("")]
            )
        known = _pairs(meta)
        if int(known.get("schema", SCHEMA)) != SCHEMA:
            raise self._schema_error(known["schema"])
        return Figures(
            self._settings.app_name,
            {_text(name): from_hash(_lines(text), fields) for name, text in zip(tasks[::2], tasks[1::2], strict=True)},
            since=self._number(known, "since"),
            updated=self._number(known, "updated"),
            flush_failures=int(self._number(known, "flush_failures") or 0),
        )

    def _number(self, meta: dict[str, str], field: str) -> float | None:
        try:
            return float(meta[field]) if field in meta else None
        except ValueError:
            message = (
                f"{field} in {self._base}meta in {self.where} is no number; remove it: HDEL {self._base}meta {field}"
            )
            raise StoreError(message) from None

    def read_origins(self) -> dict[str, dict[str, Sighting]]:
        """What was seen of the hosts that messages come from, of late.

        Raises:
            StoreError: it could not be read.
        """
        with self._errors("read from"):
            found = self._scripts["origins"](keys=[self._base + "origins"], args=[self._origin_key("")])
        return {_text(host): _sightings(_pairs(fields)) for host, fields in found if fields}

    def reset(self, task: str | None = None) -> int:
        """Forget the figures of *task*, or all; how many tasks had any.

        Raises:
            StoreError: they could not be forgotten.
        """
        keys = [self._base + key for key in ("meta", "names", "origins")]
        args = [SCHEMA, self._task_key(""), time.time(), self._origin_key(""), *([] if task is None else [task])]
        with self._errors("write to"):
            return int(self._scripts["reset"](keys=keys, args=args))

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        if self._owns_client:
            disconnect(self._client)

    def _task_key(self, name: str) -> str:
        return f"{self._base}task:{name}"

    def _origin_key(self, host: str) -> str:
        return f"{self._base}origin:{host}"

    def _schema_error(self, found: str) -> SchemaError:
        message = (
            f"the figures under {self._base} in {self.where} have schema {found}, this version of celery_argsize has "
            f"{SCHEMA}; use the same version everywhere, or another key_prefix"
        )
        return SchemaError(message)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except exceptions.RedisError as exc:
            self._begin_anew()
            if (found := str(exc)).startswith("ARGSIZE_SCHEMA "):
                raise self._schema_error(found.split()[1]) from None
            raise StoreError(explain(what, self.where, exc)) from None


def apps_in(settings: Settings) -> list[str]:
    """Names of the apps that have figures under the key prefix of *settings*.

    Raises:
        StoreError: Redis could not be read.
    """
    client = connect(settings)
    try:
        return _apps(settings, client)
    finally:
        disconnect(client)


def _apps(settings: Settings, client: Client) -> list[str]:
    try:
        return sorted(map(_text, client.smembers(f"{settings.key_prefix}:apps")))
    except exceptions.RedisError as exc:
        disconnect(client)
        raise StoreError(explain("read from", safe_url(settings.redis_url), exc)) from None


class AppsStore:
    """Reads the figures of all apps under a key prefix, over one connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(settings)
        self._stores: dict[str, RedisStore] = {}
        self.where = safe_url(settings.redis_url)

    def read_each(self, fields: tuple[str, ...] = ALL_FIELDS) -> list[Figures]:
        """The figures of each; only those *fields*, where some are given. A round trip for each app, and one more.

        Raises:
            StoreError: they could not be read.
        """
        return [self._store(name).read(fields) for name in _apps(self._settings, self._client)]

    def _store(self, name: str) -> RedisStore:
        if name not in self._stores:
            self._stores[name] = RedisStore(with_app(self._settings, name), self._client)
        return self._stores[name]

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        disconnect(self._client)


def _sightings(fields: dict[str, str]) -> dict[str, Sighting]:
    pairs = {field: text.split() for field, text in fields.items()}
    return {field: Sighting(int(value), float(moment)) for field, (value, moment) in pairs.items()}


def _pairs(flat: list[Any] | dict[Any, Any]) -> dict[str, str]:
    """A flat reply (a map, with RESP3) as a dict of texts."""
    items = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {_text(field): _text(value) for field, value in items}


def _lines(text: Any) -> dict[str, str]:
    """The fields of a task, as read.lua gives them."""
    lines = _text(text).split("\n") if text else []
    return dict(zip(lines[::2], lines[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
