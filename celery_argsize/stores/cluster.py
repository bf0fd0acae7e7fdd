"""A client for a Redis Cluster that has one connection: to the node with the key's slot.

redis-py's ``RedisCluster`` connects at once, and to every node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis import exceptions
from redis.crc import key_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")


class ClusterClient:
    """A client for the cluster of *hosts*; *options* are for its ``ConnectionPool``."""

    def __init__(self, hosts: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        self._hosts = hosts
        self._options = options
        self._node: Any = None
        self._address: tuple[str, int] | None = None
        #: First slot, last slot and primary of each range. Empty: not asked yet.
        self._ranges: list[tuple[int, int, tuple[str, int]]] = []

    def register_script(self, text: str) -> Callable[..., Any]:
        """A function that runs the Lua script *text*; it takes ``keys`` and ``args``."""

        def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
            return self._on_node(keys[0], lambda node: node.register_script(text)(keys=keys, args=args))

        return run

    def sadd(self, key: str, *members: str) -> int:
        """``SADD``."""
        return self._on_node(key, lambda node: int(node.sadd(key, *members)))

    def smembers(self, key: str) -> set[Any]:
        """``SMEMBERS``."""
        return self._on_node(key, lambda node: set(node.smembers(key)))

    def wait(self, replicas: int, timeout: int) -> int:
        """``WAIT`` on the node of the last command; *timeout* in milliseconds."""
        return int(self._node.wait(replicas, timeout))

    def close(self) -> None:
        """Close the connection. The next use asks again which node has which slot."""
        self._ranges = []
        self._disconnect()

    def _on_node(self, key: str, call: Callable[[Any], _T]) -> _T:
        """Run *call* with a client for the node of *key*; again if *key* has moved."""
        try:
            return call(self._connect(key))
        except exceptions.ResponseError as exc:
            if not isinstance(exc, exceptions.MovedError) and "MOVED " not in str(exc):  # redis-py 5.0
                raise
            self.close()
            return call(self._connect(key))

    def _connect(self, key: str) -> Any:
        """A client for the node of *key*. Closes that of another node."""
        slot = key_slot(key.encode())
        self._ranges = self._ranges or self._ask_ranges()
        address = next((address for first, last, address in self._ranges if first <= slot <= last), None)
        if address is None:
            message = "slots are not covered"
            raise exceptions.ClusterDownError(message)
        if address != self._address:
            self._disconnect()
            self._node, self._address = self._client(*address), address
        return self._node

    def _disconnect(self) -> None:
        if self._node is not None:
            self._node.connection_pool.disconnect()
        self._node = self._address = None

    def _ask_ranges(self) -> list[tuple[int, int, tuple[str, int]]]:
        """The slot ranges, from the first host that answers."""
        error = exceptions.RedisError()
        for host, port in self._hosts:
            seed: Any = self._client(host, port)
            try:
                reply = seed.execute_command("CLUSTER SLOTS")
            except (exceptions.ConnectionError, exceptions.TimeoutError) as exc:
                error = exc
            else:
                return [(first, last, _address(primary, host)) for first, last, primary, *_ in reply]
            finally:
                seed.connection_pool.disconnect()
        raise error

    def _client(self, host: str, port: int) -> redis.Redis:
        return redis.Redis(connection_pool=redis.ConnectionPool(**self._options, host=host, port=port))


def _address(node: Sequence[Any], asked: str) -> tuple[str, int]:
    """Address of *node* in a reply from *asked*, which may omit its own name."""
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (asked if host in {None, "", "?"} else host, int(node[1]))
