"""A store in Redis, for all workers of an app. docs/redis-schema.md explains the keys.

Each operation is one call of a Lua script. ``apply.lua`` remembers which batches
it added, so a batch may be sent again.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from importlib import import_module, metadata, resources
from typing import TYPE_CHECKING, Any, Final

from redis import exceptions

from celery_argsize.errors import ConfigError, SchemaError, StoreError
from celery_argsize.figures.counters import OTHER, Figures
from celery_argsize.figures.origins import Origins, Sighting
from celery_argsize.redis_url import safe_url
from celery_argsize.stores.connection import connect, disconnect, explain
from celery_argsize.stores.fields import ANY, from_hash, to_argv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Batch
    from celery_argsize.stores.connection import Client

#: Version of the keys and fields in Redis (docs/redis-schema.md).
SCHEMA: Final = 1
#: What apply.lua returns for the first batch of an app.
FIRST: Final = 2
#: Seconds that a writer is remembered. A batch that is sent
#: again later counts twice.
WRITER_TTL: Final = 24 * 60 * 60
#: Seconds to wait for ``wait_replicas`` replicas to confirm a batch.
WAIT_TIMEOUT: Final = 1.0
#: Seconds that a host is remembered after its last message.
ORIGIN_TTL: Final = 7 * 24 * 60 * 60
#: Most hosts that are remembered.
MAX_ORIGINS: Final = 1000


class RedisStore:
    """A ``Store`` of one app, with one connection that opens at first use."""

    shared = True

    def __init__(self, settings: Settings, client: Client | None = None) -> None:
        if settings.redis_url is None:
            message = "redis_url is not set; give the URL of the workers' Redis"
            raise ConfigError(message)
        self._settings = settings
        self._client = client or connect(settings)
        self._base = settings.base
        self._task_key, self._origin_key = self._base + "task:", self._base + "origin:"
        self._is_listed = False

    @property
    def where(self) -> str:
        return safe_url(self._settings.redis_url)

    @cached_property
    def _scripts(self) -> dict[str, Any]:
        return {name: self._client.register_script(_lua(name)) for name in ("apply", "origins", "read", "reset")}

    def prepare(self) -> None:
        """Load what writing needs, so that the flusher's thread imports nothing.

        A fork during an import would leave it locked in the child forever.
        """
        assert self._scripts  # noqa: S101 - reads the files
        "localhost".encode("idna")  # imports encodings.idna, which resolves host names
        metadata.version("redis")  # imports email.parser; redis-py sends its version
        import_module("secrets")  # for the pools of a cluster

    def apply(self, batch: Batch, failed: int = 0) -> None:
        settings, base = self._settings, self._base
        keys = [base + "meta", base + "names", f"{base}writer:{batch.writer}", self._task_key + OTHER, base + "origins"]
        # in the order that apply.lua explains
        argv: list[Any] = [SCHEMA, batch.sequence, time.time(), settings.max_task_names, WRITER_TTL, len(batch.tasks)]
        argv += (MAX_ORIGINS, Origins.MAX_SIGHTINGS, ORIGIN_TTL, self._origin_key, failed)
        keys += [self._task_key + name for name in batch.tasks]
        argv += batch.tasks
        for stats in batch.tasks.values():
            argv += to_argv(stats)
        keys += [self._origin_key + host for host in batch.origins]
        for host, sightings in batch.origins.items():
            argv += (host, len(sightings), *sightings)
            argv += (f"{sighting.value} {sighting.time}" for sighting in sightings.values())
        with self._errors("write to"):
            # before the batch, so that after any error it may be sent again
            if not (was_listed := self._is_listed):
                self._list_app()
            reply = self._scripts["apply"](keys=keys, args=argv)
            if settings.wait_replicas:
                self._wait_for_replicas()
            if reply == FIRST and was_listed:  # Redis has lost its data
                self._list_app()

    def _list_app(self) -> None:
        self._client.sadd(f"{self._settings.key_prefix}:apps", self._settings.app_name)
        self._is_listed = True

    def _drop_connection(self) -> None:
        """Make the next attempt connect again, perhaps to a new primary."""
        self._is_listed = False
        disconnect(self._client)

    def _wait_for_replicas(self) -> None:
        """Raise ``StoreError`` unless enough replicas confirm the last write."""
        wanted = self._settings.wait_replicas
        confirmed = self._client.wait(wanted, round(WAIT_TIMEOUT * 1000))
        if confirmed < wanted:
            self._drop_connection()
            message = (
                f"cannot be sure of what was written to Redis at {self.where}: {confirmed} of "
                f"wait_replicas = {wanted} replicas confirmed within {WAIT_TIMEOUT:g} s; are they running?"
            )
            raise StoreError(message)

    def read(self, fields: tuple[str, ...] = ANY) -> Figures:
        keys = [self._base + "meta", self._base + "names"]
        with self._errors("read from"):
            meta_reply, *tasks = self._scripts["read"](keys=keys, args=[self._task_key])
        meta = _as_dict(meta_reply)
        if int(meta.get("schema", SCHEMA)) != SCHEMA:
            raise self._schema_error(meta["schema"])
        return Figures(
            self._settings.app_name,
            {_text(name): from_hash(_lines(text), fields) for name, text in zip(tasks[::2], tasks[1::2], strict=True)},
            since=self._number(meta, "since"),
            updated=self._number(meta, "updated"),
            flush_failures=int(self._number(meta, "flush_failures") or 0),
        )

    def _number(self, meta: dict[str, str], field: str) -> float | None:
        try:
            return float(meta[field]) if field in meta else None
        except ValueError:
            key = f"{self._base}meta"
            message = f"{field} in {key} in {self.where} is no number; remove it: HDEL {key} {field}"
            raise StoreError(message) from None

    def read_origins(self) -> dict[str, dict[str, Sighting]]:
        with self._errors("read from"):
            reply = self._scripts["origins"](keys=[self._base + "origins"], args=[self._origin_key])
        origins: dict[str, dict[str, Sighting]] = {}
        for host, fields in reply:
            for field, text in _as_dict(fields).items():
                value, moment = text.split()
                origins.setdefault(_text(host), {})[field] = Sighting(int(value), float(moment))
        return origins

    def reset(self, task: str | None = None) -> int:
        keys = [self._base + key for key in ("meta", "names", "origins")]
        args = [SCHEMA, self._task_key, time.time(), self._origin_key, *([] if task is None else [task])]
        with self._errors("write to"):
            return int(self._scripts["reset"](keys=keys, args=args))

    def close(self) -> None:
        disconnect(self._client)

    def _schema_error(self, schema: str) -> SchemaError:
        return SchemaError(
            f"the figures under {self._base} in {self.where} have schema {schema}, this version of "
            f"celery_argsize has {SCHEMA}; use one version, or another key_prefix"
        )

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Raise redis-py's errors as ``StoreError``. *action*: "read from" or "write to"."""
        try:
            yield
        except exceptions.RedisError as exc:
            self._drop_connection()
            if str(exc).startswith("ARGSIZE_SCHEMA "):
                raise self._schema_error(str(exc).split()[1]) from None
            raise StoreError(explain(action, self.where, exc)) from None


class AppsStore(RedisStore):
    """Reads the figures of all apps under a key prefix. Methods raise ``StoreError``."""

    def names(self) -> list[str]:
        with self._errors("read from"):
            return sorted(map(_text, self._client.smembers(f"{self._settings.key_prefix}:apps")))

    def read_each(self, fields: tuple[str, ...] = ANY) -> list[Figures]:
        """The figures of each app, sorted by app. Each needs a round trip."""
        return [RedisStore(replace(self._settings, app_name=name), self._client).read(fields) for name in self.names()]


def apps_in(settings: Settings) -> list[str]:
    """Names of the apps in the Redis of *settings*, or ``StoreError``."""
    with closing(AppsStore(settings)) as store:
        return store.names()


@lru_cache
def _lua(name: str) -> str:
    return (resources.files("celery_argsize.stores") / f"{name}.lua").read_text(encoding="utf-8")


def _as_dict(reply: list[Any] | dict[Any, Any]) -> dict[str, str]:
    """The fields in a reply, which is a flat list, or a map with RESP3."""
    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(field): _text(value) for field, value in items}


def _lines(text: Any) -> dict[str, str]:
    """A task's fields from read.lua: names and values on alternate lines."""
    lines = _text(text).split("\n")
    return dict(zip(lines[::2], lines[1::2], strict=False))  # the text may be empty


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
