"""The server of metrics: what it answers, whom it answers, and that nobody keeps it from answering."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme
from support.servers import RedisServer, wait_until

from celery_argsize import ConfigError
from celery_argsize.api.collector import collector
from celery_argsize.figures.counters import Rules, Tally
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.prometheus.collector import ArgsizeCollector
from celery_argsize.prometheus.server import OPENMETRICS, TEXT, MetricsServer
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPMessage
    from pathlib import Path

UP, DOWN = "celery_task_args_up 1", "celery_task_args_up 0"


@pytest.fixture(autouse=True)
def _nobody_works_on_after_the_test() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "celery-argsize-recommender":
            thread.join(20)


def runs(sequence: int, *names: str, size: int = 5000) -> Batch:
    tally = Tally(1000)
    for name in names:
        part = Part(Size(size, size), "intact", size)
        tally.add(Measurement(name, f"id of {name}", part, part, 1234.5), Rules(1024, DEFAULT_BUCKETS))
    return Batch("w", sequence, tally.tasks)


@contextmanager
def serving(source: Any = None, **options: Any) -> Iterator[MetricsServer]:
    if source is None:
        source = MemoryStore(Settings())
        source.apply(runs(1, *(f"task {number}" for number in range(10))))
    server = MetricsServer(ArgsizeCollector(source), port=0, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def address(server: MetricsServer) -> tuple[str, int]:
    host, _, port = server.url.split("/")[2].rpartition(":")
    return host.strip("[]"), int(port)


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes


def get(server: MetricsServer, path: str = "/metrics", *, method: str = "GET", **headers: str) -> Answer:
    connection = HTTPConnection(*address(server), timeout=20)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def text(server: MetricsServer, **headers: str) -> str:
    response = get(server, **headers)
    assert response.status == 200
    return response.body.decode()


def test_what_it_answers() -> None:
    with serving() as server:
        metrics = get(server)
        assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert UP in metrics.body.decode().splitlines()
        prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        openmetrics = get(server, Accept=prometheus)
        assert openmetrics.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert openmetrics.body.endswith(b"# EOF\n")
        assert b'# {task_id="id of task 3"} 5000' in openmetrics.body
        zipped = get(server, **{"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(zipped.body) == metrics.body
        assert get(server, "/metrics?name=x").status == 200
        assert (get(server, "/-/healthy").status, get(server, "/-/healthy").body) == (200, b"OK\n")
        head = get(server, method="HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (
            200,
            b"",
            metrics.headers["Content-Length"],
        )
        assert (get(server, "/metric").status, b"/metrics" in get(server, "/").body) == (404, True)
        assert get(server, method="POST").status == 501


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("application/openmetrics-text", True),
        ("text/plain, application/openmetrics-text; version=1.0.0;q=0.5", True),
        ("application/openmetrics-text;version=2.0.0", True),
        ("application/openmetrics-textual", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_who_accepts_openmetrics_gets_it(accept: str, *, openmetrics: bool) -> None:
    with serving() as server:
        answer = get(server, Accept=accept)
        assert answer.headers["Content-Type"] == (OPENMETRICS if openmetrics else TEXT)
        assert answer.body.endswith(b"# EOF\n") == openmetrics


@pytest.mark.parametrize(
    ("accept", "zipped"),
    [("deflate, gzip", True), ("GZIP;q=1", True), ("identity", False), ("x-gzip", False)],
)
def test_who_accepts_gzip_gets_it(accept: str, *, zipped: bool) -> None:
    with serving() as server:
        assert (get(server, **{"Accept-Encoding": accept}).headers["Content-Encoding"] == "gzip") == zipped


def test_a_request_may_name_the_whole_url() -> None:
    with serving() as server:
        assert get(server, server.url + "?x=1").status == 200


def test_a_client_that_takes_its_time_byte_by_byte_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetricsServer, "DEADLINE", 1.0)
    with serving() as server, socket.create_connection(address(server)) as client:
        began = time.monotonic()
        client.settimeout(0.1)
        said = None
        while said is None:
            assert time.monotonic() < began + 5, "it is still served"
            try:
                client.sendall(b"G")
                said = client.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                said = b""
        assert said == b""
        assert time.monotonic() > began + 0.9
        assert UP in text(server)


def test_clients_that_say_nothing_keep_nobody_out() -> None:
    with serving() as server:
        silent = [socket.create_connection(address(server)) for _ in range(3 * server.MAX_CONNECTIONS)]
        half = [socket.create_connection(address(server)) for _ in range(server.MAX_CONNECTIONS)]
        for client in half:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        began = time.monotonic()
        assert UP in text(server)
        assert time.monotonic() - began < server.TIMEOUT / 2
        assert threading.active_count() < 2 * server.MAX_CONNECTIONS + 10
        silent[0].settimeout(20)
        assert silent[0].recv(1) == b"", "the oldest are closed"
        for client in silent + half:
            client.close()


def test_clients_that_take_nothing_keep_nobody_out() -> None:
    store = MemoryStore(Settings())
    store.apply(runs(1, *(f"{number} {'x' * 100}" for number in range(900))))
    with serving(store) as server:
        slow = [socket.create_connection(address(server)) for _ in range(server.MAX_CONNECTIONS)]
        for client in slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        for client in slow:
            client.recv(1)  # it is being answered
        assert UP in text(server)
        for client in slow:
            client.close()


def test_a_client_that_hangs_up_harms_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        for said in (b"", b"GET", b"\x16\x03\x01", b"GET /metrics HTTP/1.0\r\n\r\n", b"\r\n\r\n" * 9):
            with socket.create_connection(address(server)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
                client.sendall(said)
        assert UP in text(server)
    assert capfd.readouterr().err == ""


def test_stopped_it_gives_up_its_port_and_its_threads() -> None:
    before = {*threading.enumerate()}
    with serving() as server:
        where = address(server)
        idle = socket.create_connection(where)

        def its_threads() -> set[threading.Thread]:
            started = {*threading.enumerate()} - before
            return started if len(started) == 2 else set()

        ours = wait_until(its_threads, what="its two threads")
    wait_until(lambda: not any(thread.is_alive() for thread in ours), what="the end of its threads")
    idle.settimeout(20)
    assert idle.recv(1) == b""
    idle.close()
    again = MetricsServer(ArgsizeCollector(MemoryStore(Settings())), *where)
    again.stop()  # before it was started
    again.stop()
    assert again.url == server.url


def test_a_port_that_is_taken_is_told() -> None:
    with serving() as server:
        host, port = address(server)
        with pytest.raises(ConfigError, match=rf"cannot be served at {host}, port {port}: .* give another port"):
            MetricsServer(server.collector, host, port)
    with pytest.raises(ConfigError, match=r"cannot be served at no\.such\.host\.invalid, port 1"):
        MetricsServer(server.collector, "no.such.host.invalid", 1)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 address")
    with serving(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert UP in text(server)


class Files:
    """Certificates in files."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.stranger = trustme.CA(), trustme.CA()
        self.certfile, self.keyfile, self.cafile = (str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem"))
        issued = self.ca.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(self.certfile)
        issued.private_key_pem.write_to_path(self.keyfile)
        self.ca.cert_pem.write_to_path(self.cafile)

    def client(self, by: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.cafile)
        if by is not None:
            by.issue_cert("scraper").configure_cert(context)
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def secure_text(server: MetricsServer, context: ssl.SSLContext) -> str:
    connection = HTTPSConnection(*address(server), context=context, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_with_tls_it_speaks_nothing_else(files: Files) -> None:
    with serving(certfile=files.certfile, keyfile=files.keyfile) as server:
        assert server.url.startswith("https://")
        assert UP in secure_text(server, files.client())
        with pytest.raises((OSError, HTTPException)):
            text(server)
        assert UP in secure_text(server, files.client())


def test_with_a_client_ca_it_answers_to_nobody_else(files: Files) -> None:
    with serving(certfile=files.certfile, keyfile=files.keyfile, client_cafile=files.cafile) as server:
        assert UP in secure_text(server, files.client(files.ca))
        for context in (files.client(), files.client(files.stranger)):
            with pytest.raises(OSError, match=r"(?i)certificate|unknown ca|reset|EOF|broken pipe"):
                secure_text(server, context)
        assert UP in secure_text(server, files.client(files.ca))


def test_clients_that_do_not_shake_hands_keep_nobody_out(files: Files) -> None:
    with serving(certfile=files.certfile, keyfile=files.keyfile) as server:
        silent = [socket.create_connection(address(server)) for _ in range(2 * server.MAX_CONNECTIONS)]
        began = time.monotonic()
        assert UP in secure_text(server, files.client())
        assert time.monotonic() - began < server.TIMEOUT / 2
        for client in silent:
            client.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"certfile": "no.pem"}, "certfile no.pem"),
        ({"keyfile": "key.pem"}, "needs a certfile"),
        ({"client_cafile": "ca.pem"}, "needs a certfile"),
    ],
)
def test_files_that_cannot_be_used_are_told(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MetricsServer(ArgsizeCollector(MemoryStore(Settings())), port=0, **options)


def test_a_client_ca_that_cannot_be_used_is_told(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"client_cafile no\.pem cannot be used"):
        MetricsServer(
            ArgsizeCollector(MemoryStore(Settings())),
            port=0,
            certfile=files.certfile,
            keyfile=files.keyfile,
            client_cafile="no.pem",
        )


# -- with Redis ----------------------------------------------------------------------------------------------------


def test_redis_away_is_up_0_and_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    redis = RedisServer(tmp_path).start()
    store = RedisStore(Settings(redis_url=redis.url))
    try:
        store.apply(runs(1, "scan"))
        with serving(store) as server:
            assert UP in text(server)
            redis.stop()
            for _ in range(5):
                assert [line for line in text(server).splitlines() if not line.startswith("#")] == [DOWN]
            assert get(server, "/-/healthy").status == 200
            redis.start()
            assert UP in text(server)
    finally:
        redis.stop()
        store.close()
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "cannot be read" in said[0]
    assert f"127.0.0.1:{redis.port}" in said[0]
    assert "can be read again" in said[1]


@pytest.mark.slow
def test_a_frozen_redis_holds_many_scrapes_no_longer_than_one(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path).start()
    store = RedisStore(Settings(redis_url=redis.url))
    try:
        store.apply(runs(1, "scan"))
        with serving(store) as server:
            os.kill(redis.pid, signal.SIGSTOP)
            began = time.monotonic()
            answer = get(server)
            alone = time.monotonic() - began
            assert DOWN in answer.body.decode()
            with ThreadPoolExecutor(8) as threads:
                began = time.monotonic()
                answers = [*threads.map(lambda _: text(server), range(8))]
                assert time.monotonic() - began < 2.5 * alone + 1
            assert all(DOWN in answer for answer in answers)
            os.kill(redis.pid, signal.SIGCONT)
            wait_until(lambda: UP in text(server), what="Redis")
    finally:
        os.kill(redis.pid, signal.SIGCONT)
        redis.stop()
        store.close()


def test_scrapes_at_a_time_each_get_all(redis_url: str) -> None:
    store = RedisStore(Settings(redis_url=redis_url))
    store.apply(runs(1, *(f"task {number}" for number in range(100))))
    with serving(store) as server, ThreadPoolExecutor(8) as threads:
        assert len({*threads.map(lambda _: text(server), range(40))}) == 1
    store.close()


def test_without_an_app_it_serves_those_of_all_apps_added_up(redis_url: str, redis_server: RedisServer) -> None:
    for number, name in enumerate(("music", "mail"), 1):
        store = RedisStore(Settings(redis_url=redis_url, app_name=name))
        store.apply(runs(1, "scan", name, size=3000 * number), failed=number)
        store.close()
    both = collector(redis_url=redis_url)
    with redis_server.client() as client:
        before = {each["id"] for each in client.client_list()}  # those of earlier tests may end meanwhile
        lines = both.exposition().decode().splitlines()
        assert 'celery_task_args_size_bytes_sum{part="args",task="scan"} 9000' in lines
        assert 'celery_task_args_max_size_bytes{part="args",task="scan"} 6000' in lines
        assert 'celery_task_args_size_bytes_sum{part="args",task="mail"} 6000' in lines
        assert "celery_task_args_flush_failures_total 3" in lines
        # the recommendation is worked out over another connection, and closes it
        wait_until(lambda: len({each["id"] for each in client.client_list()} - before) == 1, what="one connection")
    one = collector(redis_url=redis_url, app_name="music")
    assert 'celery_task_args_size_bytes_sum{part="args",task="scan"} 3000' in one.exposition().decode().splitlines()


def test_the_recommendation_comes_without_a_scrape_waiting_for_it(redis_url: str) -> None:
    store = RedisStore(Settings(redis_url=redis_url, app_name="music"))
    store.apply(runs(1, *["scan"] * 50))
    store.close()
    served = collector(redis_url=redis_url, broker="amqp")
    wait_until(lambda: 'recommended_chars{part="args"} 1024\n' in served.exposition().decode(), what="it")


def test_a_collector_of_figures_that_are_in_no_redis_is_refused() -> None:
    from celery import Celery

    with pytest.raises(ConfigError, match="redis_url is not set"):
        collector(Celery("alone", broker="memory://", set_as_current=False))


# -- in a worker's main process ------------------------------------------------------------------------------------

FORKING = """
import os, socket, sys, threading, time, urllib.request
from celery_argsize.settings import Settings
from celery_argsize.prometheus.collector import ArgsizeCollector
from celery_argsize.prometheus.server import MetricsServer
from celery_argsize.stores.memory import MemoryStore

server = MetricsServer(ArgsizeCollector(MemoryStore(Settings())), port=0)
os.register_at_fork(after_in_child=server.abandon)
server.start()
where = server.server_address
idle, slow = socket.create_connection(where), socket.create_connection(where)
slow.sendall(b"GET /-/healthy HTTP/1.0\\r\\n")
while len(server._open) < 2 or threading.active_count() < 4:
    time.sleep(0.01)
time.sleep(0.2)  # until it is read; a child that is forked before shows as much
hold, release = os.pipe()
if not os.fork():
    os.close(release)
    os.read(hold, 1)  # a child that outlives all of it
    os._exit(0)
assert urllib.request.urlopen(server.url).status == 200
slow.sendall(b"\\r\\n")
slow.settimeout(20)
said = b""
while more := slow.recv(100):
    said += more
print(said.splitlines()[-1])
server.stop()
idle.settimeout(20)
print(idle.recv(1))
socket.create_server(where).close()
print("free")
"""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_child_holds_neither_the_port_nor_a_client() -> None:
    assert python(FORKING).splitlines() == ["b'OK'", "b''", "free"]


SERVING = """
import gzip, sys, urllib.error, urllib.request
from celery_argsize.settings import Settings
from celery_argsize.prometheus.collector import ArgsizeCollector
from celery_argsize.prometheus.server import MetricsServer
from celery_argsize.stores.memory import MemoryStore
import http.client, socket
def get(path, **headers):
    client = socket.create_connection(server.server_address)
    lines = "".join(f"{name.replace('_', '-')}: {value}\\r\\n" for name, value in headers.items())
    client.sendall(f"GET {path} HTTP/1.1\\r\\n{lines}\\r\\n".encode())
    said = b""
    while more := client.recv(1 << 16):
        said += more
    return said
server = MetricsServer(ArgsizeCollector(MemoryStore(Settings())), port=0)
server.start()
before = set(sys.modules)
for path in ("/metrics", "/-/healthy", "/", "/none"):
    for headers in ({}, {"Accept": "application/openmetrics-text", "Accept_Encoding": "gzip"}):
        assert get(path, **headers).startswith(b"HTTP/1.0 ")
print(sorted(set(sys.modules) - before))
server.stop()
"""


def test_to_answer_it_imports_nothing() -> None:
    """A fork while a thread imports would leave that import locked in the child."""
    assert python(SERVING) == "[]\n"
