"""A Redis Cluster, as the store uses it: one key's slot a call, one connection kept, nothing sent twice.

redis-py's own client for clusters connects as soon as it is made, loads scripts on every primary, and keeps a
connection for each node that it ever spoke to. This one is made of it, without that.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.cluster import REDIS_ALLOWED_KEYS, ClusterNode, RedisCluster

from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class ClusterClient:
    """A client for the cluster that *hosts* are of; *options* are redis-py's.

    Raises:
        ConfigError: this version of redis-py would leave out a TLS option.
    """

    def __init__(self, hosts: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        if options.get("db") == 0:
            options = {name: value for name, value in options.items() if name != "db"}
        unknown = [name for name in options if name.startswith("ssl") and name not in REDIS_ALLOWED_KEYS]
        if left_out := [name for name in unknown if options[name]]:
            message = (
                f"this version of redis-py has no {left_out[0]} for clusters; install redis>=6, or set it to false"
            )
            raise ConfigError(message)
        self._hosts = tuple(hosts)
        self._options = options
        self._client: Any = None  # a RedisCluster, which has types for half of it
        self._node: Any = None

    def register_script(self, text: str) -> Callable[..., Any]:
        """Something to call with ``keys`` and ``args``; it sends the script itself where the node does not have it."""
        return partial(self._run, text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - Redis names them so

    def _run(self, text: str, sha: str, *, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        with self._cluster() as cluster:
            try:
                found = cluster.evalsha(sha, len(keys), *keys, *args)
            except exceptions.NoScriptError:
                # script_load() would load it everywhere
                cluster.execute_command("SCRIPT LOAD", text, target_nodes=cluster.get_node_from_key(keys[0]))
                found = cluster.evalsha(sha, len(keys), *keys, *args)
            node = cluster.get_node_from_key(keys[0])
            if node is not self._node:  # the slot has moved
                _close_connections(cluster, but=node)
            self._node = node
            return found

    def sadd(self, key: str, *members: str) -> int:
        """``SADD``. For a key of another slot than that of scripts: its connection is closed afterwards."""
        with self._cluster() as cluster:
            added = int(cluster.sadd(key, *members))
            _close_connections(cluster)
            return added

    def smembers(self, key: str) -> set[Any]:
        """``SMEMBERS``."""
        with self._cluster() as cluster:
            return set(cluster.smembers(key))

    def wait(self, replicas: int, timeout: int) -> int:
        """``WAIT``, on the node where the last script ran; *timeout* in milliseconds."""
        with self._cluster() as cluster:
            return int(cluster.wait(replicas, timeout, target_nodes=self._node))

    def close(self) -> None:
        """Close what is open; the next use asks the cluster anew which node has which slot."""
        cluster, self._client, self._node = self._client, None, None
        if cluster is not None:
            _close_connections(cluster)
            cluster.close()

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        try:
            if self._client is None:
                self._client = self._connect()
            yield self._client
        except exceptions.RedisClusterException as exc:  # which is no RedisError
            cause = exc.__cause__
            raise cause if isinstance(cause, exceptions.RedisError) else exceptions.ConnectionError(str(exc)) from exc

    def _connect(self) -> Any:
        make_node: Any = ClusterNode
        nodes = [make_node(host, port) for host, port in self._hosts]
        try:
            cluster: Any = RedisCluster(startup_nodes=nodes, **self._options)
        except IndexError:  # of redis-py 5, where no node has a slot
            message = "All slots are not covered"
            raise exceptions.RedisClusterException(message) from None
        cluster.cluster_error_retry_attempts = 0  # before version 6, redis-py would go by this instead of by retry
        _close_connections(cluster)
        return cluster


def _close_connections(cluster: Any, but: Any = None) -> None:
    for node in cluster.get_nodes():
        if node is not but and node.redis_connection is not None:
            node.redis_connection.connection_pool.disconnect()
