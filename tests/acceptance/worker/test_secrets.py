"""No argument value leaves the process that runs its task, and no password of a URL is shown.

They are looked for in the worker's log at DEBUG, in each command that its Redis got, in all keys and values of that
Redis, and in what our commands print. Celery's own log lines do quote arguments.
"""

from __future__ import annotations

import decimal
import json
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
from celery import Celery
from support.servers import BIN, RedisServer, Worker, free_port, run, running, wait_until
from support.worklog import LOG_CONF, ours

import celery_argsize
from celery_argsize.api.collector import collector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scene import Scene

MARKER: Final = "sesame-open-4711"

#: Wherever a parser breaks it apart, each piece still shows where it came from.
PASSWORD: Final = "sesame1/sesame2@sesame3:sesame4#sesame5?sesame6%sesame7"
LOGIN: Final = f"sesame-user:{quote(PASSWORD, safe='')}"


# -- argument values ---------------------------------------------------------------------------------------------------


@contextmanager
def overheard(server: RedisServer) -> Iterator[list[bytes]]:
    """All commands that *server* gets within the block, as MONITOR writes them; there once the block has ended."""
    heard: list[bytes] = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as listener:
        listener.sendall(b"MONITOR\r\n")
        assert listener.recv(5) == b"+OK\r\n"
        yield heard
        with server.client() as client:
            client.echo("that-was-all")
        while b"that-was-all" not in b"".join(heard[-2:]):
            heard.append(listener.recv(1 << 20))


def contents(server: RedisServer) -> str:
    """All keys of *server* and all that they hold."""
    readers = {"string": "get", "hash": "hgetall", "set": "smembers"}
    with server.client(decode_responses=True) as client:
        keys = {key: client.type(key) for key in client.scan_iter()}
        held = {key: getattr(client, readers[kind])(key) for key, kind in keys.items() if kind in readers}
        held |= {key: client.zrange(key, 0, -1, withscores=True) for key, kind in keys.items() if kind == "zset"}
        held |= {key: client.lrange(key, 0, -1) for key, kind in keys.items() if kind == "list"}
        assert held.keys() == keys.keys()
        return str(held)


def send_marked(producer: Celery) -> int:
    """Send the marker in all ways there are. Gives how many runs are to be counted."""
    nested: list[Any] = [MARKER]
    for _ in range(30):
        nested = [{MARKER: nested}, MARKER]
    plain: list[tuple[list[Any], dict[str, Any]]] = [
        ([MARKER], {}),
        ([], {"word": MARKER}),
        ([{MARKER: 1}], {MARKER.replace("-", "_"): MARKER}),
        ([[MARKER] * 50], {"words": {MARKER: [MARKER] * 50}}),
        ([MARKER * 20_000], {"word": MARKER * 20_000}),
        ([f"é\ud800{MARKER}'\"\n" * 300], {}),
        ([nested], {}),
        ([f"...', {MARKER}, ..."], {}),
    ]
    pickled: list[list[Any]] = [
        [MARKER.encode()],
        [b"\xff" + MARKER.encode() * 10_000],
        [{MARKER, "another"}, frozenset([MARKER]), {(MARKER, 1): MARKER}],
        [{decimal.Decimal(1): MARKER, 2**70: MARKER}, MARKER],
        [object, MARKER],
    ]
    for args, kwargs in plain:
        producer.send_task("takes", args, kwargs)
    for args in pickled:
        producer.send_task("takes", args, serializer="pickle")
    for argsrepr in (MARKER * 500, f"('{MARKER}', ...", f"('{MARKER[:9]}...',)", f"<{MARKER}>"):
        producer.send_task("takes", [MARKER], {"word": MARKER}, argsrepr=argsrepr, kwargsrepr=argsrepr)
    producer.send_task("sends_hostile", [MARKER])
    producer.send_task("runs_eagerly", [MARKER])
    producer.conf.task_protocol = 1
    producer.send_task("takes", [MARKER * 300])
    return len(plain) + len(pickled) + 4 + (1 + 4) + (1 + 1) + 1


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for the figures alone, with the user and password of ``LOGIN``."""
    server = RedisServer(tmp_path)
    try:
        with server.start().client() as client:
            client.acl_setuser(
                "sesame-user", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"]
            )
        yield server
    finally:
        server.stop()


def with_login(server: RedisServer, login: str = LOGIN) -> str:
    return f"redis://{login}@127.0.0.1:{server.port}/0"


def environment(scene: Scene, **settings: Any) -> dict[str, str]:
    conf = {**LOG_CONF, "accept_content": ["json", "pickle"]}
    return {**scene.env({"flush_interval": 0.1, **settings}, conf), "TEST_EVENTS": str(scene.folder / "events")}


@pytest.mark.slow
def test_no_argument_value_leaves_the_process(scene: Scene, own_redis: RedisServer) -> None:
    env = environment(scene, redis_url=with_login(own_redis), include_eager=True)
    del env["TEST_ORACLE"]
    producer = Celery("workload", broker=scene.broker, set_as_current=False)

    def counted() -> int:
        return celery_argsize.get_size_summary(redis_url=with_login(own_redis)).total_tasks

    worker = Worker(scene.folder, env, "-c", "1", "-l", "DEBUG", module="lifecycle")
    with overheard(own_redis) as heard, running(worker):
        runs = send_marked(producer)
        wait_until(lambda: counted() >= runs, what="all figures")
        printed = commands(env, ["report"], ["report", "--json"], ["recommend"], ["recommend", "--json"])
        printed += commands(
            env, ["verify"], ["verify", "--json"], ["check", "--max-bytes", "1"], ["report", "--html", "-"]
        )
        inspected = run(str(BIN / "celery"), "-A", "lifecycle", "inspect", "argsize", "-t", "5", env=env).stdout
        log = worker.stop()
    metrics = collector(redis_url=with_login(own_redis), broker="redis").exposition(openmetrics=True).decode()
    assert counted() == runs
    said = "".join(record.text for record in ours(log))
    texts = {
        "log": said,
        "what Redis heard": b"".join(heard).decode(errors="replace"),
        "what Redis holds": contents(own_redis),
        "what commands print": printed,
        "what Prometheus gets": metrics,
        "what a worker answers": inspected,
    }
    for where, text in texts.items():
        assert "sesame" not in text, where
        assert "takes" in text or "host" in text, f"{where}: nothing of ours"
    assert "[CELERY MONITOR] Task: takes" in said
    assert "[WORKER SHUTDOWN] Unmeasurable tasks" in said
    assert MARKER in log, "Celery's own lines at DEBUG: else there was nothing to be found"
    assert PASSWORD not in log
    assert quote(PASSWORD, safe="") not in log


def commands(env: dict[str, str], *each: list[str]) -> str:
    """What ``celery argsize`` prints, run with each of these."""

    def one(options: list[str]) -> str:
        done = run(str(BIN / "celery"), "-A", "lifecycle", "argsize", *options, env=env)
        assert done.returncode in {0, 1, 4}, done.stderr
        return done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        return "".join(pool.map(one, each))


# -- passwords ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def unreachable(own_redis: RedisServer) -> dict[str, str]:
    """URLs with a password at which no Redis can be used, by what is wrong."""
    return {
        "wrong password": with_login(own_redis, LOGIN + "8"),
        "nobody there": f"redis://{LOGIN}@127.0.0.1:{free_port()}/3",
        "no such host": f"redis://{LOGIN}@no-such-host.invalid:6379/3",
        "no TLS there": f"rediss://{LOGIN}@127.0.0.1:{own_redis.port}/0?socket_timeout=0.5",
        "in the options": f"redis://127.0.0.1:{free_port()}/0?username=sesame-user&password={quote(PASSWORD, safe='')}",
    }


@pytest.mark.slow
def test_a_worker_that_cannot_write_never_logs_the_password(
    tmp_path: Path, redis_server: RedisServer, scene: Scene, unreachable: dict[str, str]
) -> None:
    workers = {}
    with ExitStack() as stack:
        for database, (wrong, url) in enumerate(unreachable.items(), start=1):
            broker = f"{redis_server.url.removesuffix('/0')}/{database}"
            folder = tmp_path / f"worker-{database}"
            folder.mkdir()
            env = environment(scene, redis_url=url, shutdown_timeout=0.2)
            env |= {"TEST_BROKER": broker, "TEST_BACKEND": broker}
            workers[wrong] = Worker(folder, env, "-c", "1", "-l", "DEBUG", module="lifecycle")
            Celery("workload", broker=broker, set_as_current=False).send_task("takes", [1])
        for worker in workers.values():
            stack.enter_context(running(worker))
        for wrong, worker in workers.items():
            wait_until(partial(complains, worker), what=wrong)
            worker.process.terminate()
        assert {wrong: worker.process.wait(30) for wrong, worker in workers.items()} == dict.fromkeys(workers, 0)
    for wrong, worker in workers.items():
        assert "sesame" not in worker.log, wrong
        assert "cannot write to Redis at redis" in worker.log, wrong


def complains(worker: Worker) -> bool:
    return "figures are not being written" in worker.log


@pytest.mark.slow
def test_commands_that_cannot_read_never_print_the_password(scene: Scene, unreachable: dict[str, str]) -> None:
    def one(case: tuple[str, str, str]) -> tuple[str, str, str]:
        wrong, url, command = case
        options = ["--yes"] if command == "reset" else []
        if command == "report":
            done = run(str(BIN / "celery"), "argsize", command, "--redis-url", url, env=scene.env())
        else:
            env = environment(scene, redis_url=url)
            done = run(str(BIN / "celery"), "-A", "lifecycle", "argsize", command, *options, env=env)
        assert done.returncode == 3, (wrong, command, done.stderr)
        return wrong, command, done.stdout + done.stderr

    cases = [(wrong, url, "report") for wrong, url in unreachable.items()]
    cases += [("wrong password", unreachable["wrong password"], command) for command in ("reset", "verify")]
    with ThreadPoolExecutor(4) as pool:
        for wrong, command, printed in pool.map(one, cases):
            assert "sesame" not in printed, (wrong, command)
            assert "Traceback" not in printed, (wrong, command)
            assert "Redis at redis" in printed, (wrong, command)


#: URLs that cannot work, as they are typed: "PW" stands for the password as it is, "QUOTED" for the same in URL form.
TYPED: Final = [
    "redis://sesame-user:PW@127.0.0.1:6379/0",
    "redis://sesame-user:[PW@127.0.0.1:6379/0",
    "redis://:PW]@127.0.0.1:6379/0",
    "redis://sesame-user:QUOTED@127.0.0.1:notaport/0",
    "redis://sesame-user:QUOTED@127.0.0.1:99999/0",
    "redis://127.0.0.1:QUOTED/0",
    "redis://127.0.0.1:PW/0",
    "redis://sesame-user:QUOTED@127.0.0.1:6379/0/1/x",
    "http://sesame-user:QUOTED@127.0.0.1:6379/0",
    "sesame-user:QUOTED@127.0.0.1:6379/0",
    "QUOTED",
    "PW",
    "redis:/sesame-user:QUOTED@127.0.0.1:6379/0",
    "redis//sesame-user:QUOTED@127.0.0.1:6379/0",
    " redis://sesame-user:QUOTED@127.0.0.1:6379/0",
    "redis://127.0.0.1:6379/0?password=QUOTED&socket_timeout=QUOTED",
    "redis://127.0.0.1:6379/0?password=QUOTED&ssl_cert_reqs=required&db=QUOTED",
    "rediss://127.0.0.1:6379/0?password=QUOTED&ssl_cert_reqs=QUOTED",
    "unix://sesame-user:QUOTED@/no/such/socket?db=QUOTED",
    "unix://sesame-user:QUOTED@",
    "redis+socket://sesame-user:QUOTED@/no/such/socket?virtual_host=QUOTED",
    "redis://sesame-user:QUOTED@[::1/0",
    "redis://sesame-user:QUOTED@ho st:1/0",
    "redis://sesame-user:QUOTED\n@127.0.0.1:1/0",
]


@pytest.mark.parametrize("typed", TYPED)
def test_no_error_quotes_the_password_of_a_url_that_cannot_work(typed: str) -> None:
    url = typed.replace("PW", PASSWORD).replace("QUOTED", quote(PASSWORD, safe=""))
    app = Celery("music", broker="memory://", set_as_current=False)
    app.conf.argsize_redis_url = url

    def errors() -> Iterator[BaseException]:
        for call in (
            lambda: celery_argsize.get_size_summary(redis_url=url),
            lambda: celery_argsize.get_size_summary(app),
            lambda: celery_argsize.reset_metrics(redis_url=url),
            lambda: celery_argsize.verify_limits(app),
        ):
            with pytest.raises(celery_argsize.ArgsizeError) as caught:
                call()
            yield caught.value

    for error in errors():
        told = "".join(traceback.format_exception_only(error))
        assert "sesame" not in told + str(error.args) + json.dumps(vars(error), default=str)


def test_the_password_of_an_apps_own_redis_is_not_quoted_either(own_redis: RedisServer) -> None:
    for conf in ("broker_url", "result_backend"):
        app = Celery("music", set_as_current=False)
        app.conf[conf] = f"{with_login(own_redis, LOGIN + '8')};redis://{LOGIN}@127.0.0.1:1/0"
        with pytest.raises(celery_argsize.StoreError) as caught:
            celery_argsize.get_size_summary(app)
        assert "sesame" not in str(caught.value)
        assert f"127.0.0.1:{own_redis.port}" in str(caught.value)
