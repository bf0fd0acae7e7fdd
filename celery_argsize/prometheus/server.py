"""Serves metrics over HTTP at ``/metrics``, and ``/-/healthy`` for health checks.

prometheus_client's server makes TLS handshakes in the thread that accepts, so one
slow client blocks all others. Here, each connection's thread makes its own.
"""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder, gzip_accepted

from celery_argsize.errors import ConfigError
from celery_argsize.failure_log import FailureLog

if TYPE_CHECKING:
    from celery_argsize.prometheus.collector import ArgsizeCollector

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves the metrics of *collector* at ``url``, from ``start`` to ``stop``.

    *port* 0 takes a free one. With *certfile*, it speaks only TLS; *keyfile* is for a key
    in another file. With *client_cafile*, clients need a certificate of that CA.

    Raises:
        ConfigError: the address is invalid or taken, or a file cannot be used.
    """

    #: Most connections at a time. One more ends the oldest, so that
    #: silent clients block nobody.
    MAX_CONNECTIONS: Final = 16
    #: Seconds that a client may be silent.
    TIMEOUT: Final = 10.0
    #: Seconds that a connection may last.
    DEADLINE: Final = 60.0

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(  # noqa: PLR0913 - as prometheus_client's server
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
        self._tls = _tls_context(certfile, keyfile, client_cafile)
        #: When each open connection began (``time.monotonic``), oldest first.
        self._open: dict[Any, float] = {}
        self._lock = threading.Lock()
        self._failures = FailureLog("a request for metrics could not be answered")
        try:
            self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(address[0]), port), _Handler)
        except (OSError, OverflowError) as exc:
            message = f"metrics cannot be served at {host}, port {port}: {exc}; give another port or host"
            raise ConfigError(message) from None
        self._thread = threading.Thread(target=self.serve_forever, name="celery-argsize-metrics", daemon=True)
        host, port = self.socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}/metrics"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Free the port, end all connections. May be called before ``start``, or twice."""
        if self._thread.is_alive():
            self.shutdown()
        with self._lock:
            self._end([*self._open])
        self.server_close()

    def abandon(self) -> None:
        """In a forked child: close the socket, else the child would hold the port."""
        self.socket.close()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Does not wait for the client."""
        try:
            request, address = super().get_request()
        except OSError as exc:
            self._failures.report(exc)  # such as too many open files
            time.sleep(0.05)
            raise
        request.settimeout(self.TIMEOUT)
        if self._tls is not None:
            request = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open[request] = time.monotonic()
        return request, address

    def service_actions(self) -> None:
        """End surplus and overdue connections; called at least twice a second."""
        deadline = time.monotonic() - self.DEADLINE
        with self._lock:
            surplus = len(self._open) - self.MAX_CONNECTIONS
            requests = enumerate(self._open.items())
            self._end([request for i, (request, begun) in requests if i < surplus or begun < deadline])

    def _end(self, requests: list[Any]) -> None:
        """Shut *requests* down; their threads close them. The caller holds the lock."""
        for request in requests:
            self._open.pop(request, None)
            # A copy: shutting down the TLS socket would disturb its thread.
            with suppress(OSError), socket.socket(fileno=os.dup(request.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a request, in its own thread."""
        if self._tls is not None:
            request.do_handshake()
        super().finish_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        """Log our own faults, not clients that are slow, gone, or without certificate."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, (OSError, ValueError)):
            self._failures.report(error)

    def close_request(self, request: Any) -> None:
        """Close a connection. The lock keeps ``_end`` from using its file descriptor."""
        with self._lock:
            self._open.pop(request, None)
            super().close_request(request)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    server_version, sys_version = "celery-argsize", ""

    def do_GET(self) -> None:
        path, body, content_type = urlsplit(self.path).path, b"OK\n", TEXT
        if path == "/metrics":
            _, accepted = choose_encoder(self.headers.get("Accept", ""))
            content_type = OPENMETRICS if "openmetrics" in accepted else TEXT
            body = self.server.collector.exposition(openmetrics=content_type == OPENMETRICS)
        elif path != "/-/healthy":
            self.send_error(HTTPStatus.NOT_FOUND, explain="Metrics are at /metrics.")
            return
        self.send_response(HTTPStatus.OK)
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, 1)  # the default level takes seven times as long
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None:
        """Scrapes are not worth a line."""


def _tls_context(certfile: str | None, keyfile: str | None, client_cafile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile or client_cafile:
            message = "keyfile and client_cafile are for TLS, which needs a certfile"
            raise ConfigError(message)
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = f"certfile {certfile} with keyfile {keyfile or certfile}"
    try:
        context.load_cert_chain(certfile, keyfile)
        if client_cafile is not None:
            files = f"client_cafile {client_cafile}"
            context.load_verify_locations(client_cafile)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:
        message = f"{files} cannot be used: {exc}"
        raise ConfigError(message) from None
    return context
