"""Serves metrics over HTTP: ``/metrics`` for Prometheus, ``/-/healthy`` for who looks after the process.

prometheus_client has such a server, but with TLS it shakes hands in the thread that accepts, where one slow client
keeps all others out; and it has one path. The options for TLS are called as there. What is served is the collector's
business.
"""

from __future__ import annotations

import gzip
import os
import re
import selectors
import socket
import ssl
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from celery_argsize.errors import ConfigError
from celery_argsize.failure_log import FailureLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_argsize.prometheus.collector import ArgsizeCollector

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

INDEX: Final = b"""<!DOCTYPE html><html lang="en"><title>celery-argsize</title>
<h1>celery-argsize</h1><p>Sizes of Celery task arguments: <a href="/metrics">metrics</a></p></html>
"""

#: Bytes from which an answer is worth compressing; at level 1, as a megabyte takes 2 ms then, and 14 at the default.
GZIP_FROM: Final = 1024
GZIP_LEVEL: Final = 1

#: The weight of what a client does not want: RFC 9110, 12.4.2.
_REFUSED: Final = re.compile(r"q=0(\.0*)?")


class MetricsServer:
    """Serves what *collector* gives, in threads of its own, from ``start`` to ``stop``.

    With a *certfile* (and its *keyfile*, where that is another file) it speaks TLS only; with a *client_cafile*, only
    to clients with a certificate of that authority. A *port* of 0 takes any that is free.

    Raises:
        ConfigError: the address or port cannot be had, or a file cannot be used.
    """

    #: Connections at a time: with one more, the oldest is closed. A scrape takes well under a second.
    MAX_CONNECTIONS: Final = 16
    #: Seconds that a client may keep us waiting, at a time and in all.
    TIMEOUT: Final = 10.0
    DEADLINE: Final = 60.0

    def __init__(  # noqa: PLR0913 - prometheus_client's options
        self,
        collector: ArgsizeCollector,
        host: str = "127.0.0.1",
        port: int = 9808,
        *,
        certfile: str | None = None,
        keyfile: str | None = None,
        client_cafile: str | None = None,
    ) -> None:
        self.collector = collector
        self._tls = _tls(certfile, keyfile, client_cafile)
        self._listener = _listen(host, port)
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}/metrics"
        """Where the metrics are."""
        self._wake, self._woken = socket.socketpair()
        self._open: dict[_Connection, None] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="celery-argsize-metrics", daemon=True)
        self._failures = FailureLog("a request for metrics could not be answered")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Give up the port, and end what goes on. Harmless if it was not started, or was stopped before."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake.send(b"!")
        if self._thread.is_alive():
            self._thread.join()
        self._end([*self._open])
        self._close()

    def abandon(self) -> None:
        """In a forked child: close what is the parent's, so that clients see it end, and its port is free then."""
        for connection in [*self._open]:
            connection.abandon()
        self._close()

    def _close(self) -> None:
        for each in (self._listener, self._wake, self._woken):
            each.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                try:
                    ready = selector.select(self._until_deadline())
                    self._end(each for each in [*self._open] if each.begun + self.DEADLINE <= time.monotonic())
                    if any(key.fileobj is self._listener for key, _ in ready):
                        self._end([*self._open][: max(0, len(self._open) - self.MAX_CONNECTIONS + 1)])
                        self._serve(_Connection(self._listener.accept()[0]))
                except (ConnectionError, TimeoutError):
                    pass  # that client is gone
                except Exception as exc:  # noqa: BLE001 - no descriptors are left, or threads, for now; this thread must live
                    self._failures.report(exc)
                    self._stopping.wait(0.05)

    def _until_deadline(self) -> float | None:
        """Seconds until the oldest connection has taken too long."""
        oldest = next(iter([*self._open]), None)
        return None if oldest is None else max(0.0, oldest.begun + self.DEADLINE - time.monotonic())

    def _end(self, connections: Iterable[_Connection]) -> None:
        for connection in connections:
            self._open.pop(connection, None)
            connection.end()

    def _serve(self, connection: _Connection) -> None:
        self._open[connection] = None
        try:
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
        except RuntimeError:
            self._open.pop(connection, None)
            connection.close()
            raise

    def _answer(self, connection: _Connection) -> None:
        try:
            connection.socket.settimeout(self.TIMEOUT)
            if self._tls is not None:
                connection.secure(self._tls)
            _Handler(connection.socket, "", self)  # type: ignore[arg-type] # it asks nothing of these two
        except (OSError, ValueError):
            pass  # the client's trouble: too slow, gone, no certificate; or closed by us
        except Exception as exc:  # noqa: BLE001 - our own fault; the next one is answered all the same
            self._failures.report(exc)
        finally:
            self._open.pop(connection, None)
            connection.close()


class _Connection:
    """A client's connection."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self._fd = accepted.fileno()
        self.begun = time.monotonic()
        self._closing = threading.Lock()  # nobody ends what has this number once it is closed

    def secure(self, tls: ssl.SSLContext) -> None:
        """Shake hands."""
        secured = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.socket = secured
        secured.do_handshake()

    def close(self) -> None:
        """Give it back; by the thread that serves it."""
        with self._closing:
            self.socket.close()

    def end(self) -> None:
        """Have the thread that serves it find it closed."""
        # Through another object for the same connection: to end that of TLS would surprise the other thread.
        with (
            suppress(OSError, ValueError),
            self._closing,
            socket.fromfd(self.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same,
        ):
            same.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """In a forked child: close the child's copy, whatever the thread that serves it in the parent made of it."""
        with suppress(OSError):
            self.socket.detach()
            os.close(self._fd)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: MetricsServer  # type: ignore[assignment]
    server_version, sys_version = "celery-argsize", ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            openmetrics = self._accepts("Accept", "application/openmetrics-text")
            body = self.server.collector.exposition(openmetrics=openmetrics)
            self._answer(body, OPENMETRICS if openmetrics else TEXT)
        elif path == "/-/healthy":
            self._answer(b"OK\n", "text/plain; charset=utf-8")
        elif path == "/":
            self._answer(INDEX, "text/html; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, explain="Metrics are at /metrics.")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        if len(body) >= GZIP_FROM and self._accepts("Accept-Encoding", "gzip"):
            body = gzip.compress(body, GZIP_LEVEL)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _accepts(self, header: str, wanted: str) -> bool:
        """Whether the client names *wanted* in *header*, and not to refuse it."""
        for item in ",".join(self.headers.get_all(header, [])).lower().split(","):
            kind, *options = (word.strip() for word in item.split(";"))
            if kind == wanted:
                return not any(_REFUSED.fullmatch(option) for option in options)
        return False

    def log_message(self, *_: Any) -> None:
        """Scrapes are not worth a line."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, OverflowError) as exc:
        message = f"metrics cannot be served at {host}, port {port}: {exc}; give another port, or address"
        raise ConfigError(message) from None
    listener.settimeout(1.0)  # what is ready may be gone by then; and with 0 eventlet accepts sockets that block it
    return listener


def _tls(certfile: str | None, keyfile: str | None, client_cafile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile or client_cafile:
            message = "keyfile and client_cafile are for TLS, which needs a certfile too"
            raise ConfigError(message)
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as exc:
        message = f"certfile {certfile} with keyfile {keyfile or certfile} cannot be used: {exc}"
        raise ConfigError(message) from None
    if client_cafile is not None:
        try:
            context.load_verify_locations(client_cafile)
        except OSError as exc:
            message = f"client_cafile {client_cafile} cannot be used: {exc}"
            raise ConfigError(message) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
