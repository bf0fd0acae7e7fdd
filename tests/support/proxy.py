"""A TCP proxy in front of a redis-server that breaks or delays chosen requests.

It reads whole requests (RESP arrays). So a test knows whether the server got a request, and whether the client got the
reply.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: What can happen to a request. ``Proxy.seen`` counts the fates of the chosen requests.
FATES: Final = ("pass", "cut before", "cut within", "cut after", "delay")

#: Requests that are chosen. All others pass, such as those that open a connection.
CHOSEN: Final = (b"EVALSHA", b"SADD", b"SCRIPT LOAD")


class Proxy:
    """Passes requests on to the server at *port*. *choose* gives the fate of a request."""

    def __init__(self, port: int, choose: Callable[[bytes], str]) -> None:
        self._target = ("127.0.0.1", port)
        self._choose = choose
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.seen: Counter[str] = Counter()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            requests = client.makefile("rb")
            replies = server.makefile("rb")
            while request := _request(requests):
                fate = "pass"
                if any(name in request[:64] for name in CHOSEN):
                    fate = self._choose(request)
                    self.seen[fate] += 1
                if fate == "cut before":
                    return
                if fate == "cut within":
                    server.sendall(request[: random.randrange(1, len(request))])
                    return
                if fate == "delay":
                    time.sleep(random.uniform(0, 0.02))
                server.sendall(request)
                reply = _reply(replies)
                if fate == "cut after":
                    return
                client.sendall(reply)


def _request(stream: BinaryIO) -> bytes:
    line = stream.readline()
    if not line:
        return b""
    data = [line]
    for _ in range(int(line[1:])):
        head = stream.readline()
        data += [head, stream.read(int(head[1:]) + 2)]
    return b"".join(data)


def _reply(stream: BinaryIO) -> bytes:
    """Read one reply in RESP2 or RESP3."""
    line = stream.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind in b"$=!" and rest != b"-1":
        return line + stream.read(int(rest) + 2)
    if kind in b"*~>%|" and rest != b"-1":
        count = int(rest) * (2 if kind in b"%|" else 1)
        return line + b"".join(_reply(stream) for _ in range(count))
    return line
