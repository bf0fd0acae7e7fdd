"""Which Redis is meant and how it is connected to, on real ones: TLS, users, socket files; and what its errors say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.redis_kinds import (
    Authority,
    Sentinels,
    TlsServer,
    add_user,
    as_user,
    batch,
    refusal,
    started,
    written,
)
from support.servers import RedisServer, wait_until

from celery_argsize import ConfigError, StoreError
from celery_argsize.settings import Settings, resolve
from celery_argsize.stores import connection
from celery_argsize.stores.redis import RedisStore, apps_in

if TYPE_CHECKING:
    from pathlib import Path


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_takes_its_ca_from_a_setting_or_the_url(tls: TlsServer) -> None:
    ca = str(tls.authority.ca_file)
    before = written(Settings(redis_url=tls.url, redis_ssl_ca_certs=ca))
    assert written(Settings(redis_url=f"{tls.url}?ssl_ca_certs={quote(ca, safe='')}")) == before + 1
    of_app = {"ssl_ca_certs": ca, "ssl_cert_reqs": "CERT_REQUIRED"}
    assert written(Settings(redis_url=tls.url, redis_options=of_app)) == before + 2


def test_an_unknown_ca_is_refused_unless_certificates_are_not_checked(tls: TlsServer) -> None:
    said = refusal(Settings(redis_url=tls.url))
    assert said.endswith("its certificate is not signed by a CA known here; set redis_ssl_ca_certs to its CA")
    assert written(Settings(redis_url=tls.url, redis_ssl_cert_reqs="none"))
    assert written(Settings(redis_url=f"{tls.url}?ssl_cert_reqs=CERT_NONE"))
    # The URL is the more specific.
    assert "CA known here" in refusal(
        Settings(redis_url=f"{tls.url}?ssl_cert_reqs=required", redis_ssl_cert_reqs="none")
    )


def test_a_certificate_for_another_host_is_refused_unless_names_are_not_checked(
    tmp_path: Path, authority: Authority
) -> None:
    server = TlsServer(tmp_path, authority, names=("redis.example",))
    ours: dict[str, Any] = {"redis_url": server.url, "redis_ssl_ca_certs": str(authority.ca_file)}
    with started(server):
        assert "its certificate is for another host name" in refusal(Settings(**ours))
        assert "its certificate is for another host name" in refusal(
            Settings(**{**ours, "redis_url": server.url.replace("localhost", "127.0.0.1")})
        )
        assert written(Settings(**ours, redis_ssl_check_hostname=False))
        assert written(Settings(**{**ours, "redis_url": server.url + "?ssl_check_hostname=no"}))


def test_an_expired_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(tmp_path, authority, expired=True)
    with started(server):
        said = refusal(Settings(redis_url=server.url, redis_ssl_ca_certs=str(authority.ca_file)))
    assert said.endswith("its certificate has expired; renew that")


def test_a_client_certificate_is_shown_where_one_is_wanted(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(tmp_path, authority, "--tls-auth-clients", "yes")
    certificate, key = map(str, authority.issue("worker.example"))
    with started(server):
        ours: dict[str, Any] = {"redis_url": server.url, "redis_ssl_ca_certs": str(authority.ca_file)}
        assert "set redis_ssl_certfile and redis_ssl_keyfile" in refusal(Settings(**ours))
        assert written(Settings(**ours, redis_ssl_certfile=certificate, redis_ssl_keyfile=key))
        wrong = refusal(Settings(**ours, redis_ssl_certfile=certificate, redis_ssl_keyfile=certificate))
        assert "a certificate or key file is not what it should be" in wrong


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path, name: str) -> None:
    missing = str(tmp_path / "none.pem")
    ours: dict[str, Any] = {f"redis_{name}": missing}
    with pytest.raises(ConfigError, match=f"redis_{name} = .*none.pem' cannot work: No such file"):
        RedisStore(Settings(redis_url="rediss://localhost", **ours))
    with pytest.raises(ConfigError, match=f"^{name} = .*none.pem' cannot work: No such file"):
        RedisStore(Settings(redis_url=f"rediss://localhost?{name}={missing}"))


def test_who_speaks_plain_to_a_tls_port_or_tls_to_a_plain_one_is_told(
    tls: TlsServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.5)  # a plain Redis may take TLS for the beginning of a command
    assert "write rediss:// in redis_url" in refusal(Settings(redis_url=tls.url.replace("rediss", "redis")))
    said = refusal(resolve({"redis_url": redis_url, "require_redis_ssl": True}, environ={}))
    assert said.endswith("Does that port speak TLS?") or "it speaks no TLS at that port" in said


def test_redis_url_and_require_redis_ssl_as_hosts_set_them_are_enough(tls: TlsServer) -> None:
    environ = {
        "REDIS_URL": tls.url.replace("rediss", "redis"),
        "REQUIRE_REDIS_SSL": "true",
        "CELERY_ARGSIZE_REDIS_SSL_CA_CERTS": str(tls.authority.ca_file),
    }
    settings = resolve({}, environ=environ)
    assert settings.redis_url == tls.url
    assert written(settings)


# -- addresses and names -----------------------------------------------------------------------------------------------


def test_a_socket_file_and_a_database_number(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(path))
    with started(server):
        for url in (f"unix://{path}?db=3", f"redis+socket://{path}?virtual_host=/3", f"socket://{path}?db=3"):
            written(Settings(redis_url=url, require_redis_ssl=True))
        with server.client() as client:
            client.execute_command("ACL SETUSER", "narrow", "on", ">pass", "~celery-argsize:*", "+@all")
        assert written(Settings(redis_url=f"unix://narrow:pass@{path}?db=3")) == 4
        assert written(Settings(redis_url=server.url.replace("/0", "/3"))) == 5
        assert written(Settings(redis_url=f"{server.url}?db=3")) == 6
        with server.client() as client:
            assert client.info("keyspace").keys() == {"db3"}
        assert "it has no database of that number" in refusal(Settings(redis_url=server.url.replace("/0", "/99")))
    said = refusal(Settings(redis_url=f"unix://{tmp_path}/none.sock"))
    assert "there is no such socket" in said


def test_a_password_may_have_any_character(redis_server: RedisServer, redis_url: str) -> None:
    user, password = "us:er@ü", "p@ss:w/ö#?%&+ 1"
    with redis_server.client() as client:
        client.execute_command("ACL SETUSER", user, "on", ">" + password, "~*", "+@all")
        client.config_set("requirepass", password)
    try:
        encoded = quote(password, safe="")
        address = f"127.0.0.1:{redis_server.port}/0"
        before = written(Settings(redis_url=f"redis://{quote(user, safe='')}:{encoded}@{address}"))
        assert written(Settings(redis_url=f"redis://:{encoded}@{address}")) == before + 1
        assert written(Settings(redis_url=redis_url)) == before + 2
        with pytest.raises(ConfigError, match="percent-encoded: %23 ") as caught:
            RedisStore(Settings(redis_url=f"redis://:{password}@{address}"))
        assert "ss:w" not in str(caught.value)
    finally:
        with redis_server.client(password=password) as client:
            client.config_set("requirepass", "")
            client.execute_command("ACL DELUSER", user)


# -- rights ------------------------------------------------------------------------------------------------------------


def test_a_user_who_may_only_report_cannot_write_or_reset(redis_server: RedisServer, redis_url: str) -> None:
    assert written(Settings(redis_url=redis_url)) == 1
    with redis_server.client() as client:
        add_user(client, "argsize-report")
    settings = Settings(redis_url=as_user(redis_server.url, "argsize-report"))
    with closing(RedisStore(settings)) as store:
        assert store.read().tasks["scan"].counts["count"] == 1
        assert store.read_origins() == {}
        assert apps_in(settings) == ["celery"]
        for refused in (store.reset, lambda: store.reset("scan"), lambda: store.apply(batch(2))):
            with pytest.raises(StoreError, match=r"its user may not .*; docs/redis-schema\.md has the rights"):
                refused()
    assert written(Settings(redis_url=redis_url)) == 2, "nothing was forgotten, and nothing written"


def test_the_command_that_a_user_may_not_run_is_named(redis_server: RedisServer, redis_url: str) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL SETUSER", "narrow", "reset", "on", ">PASSWORD", "~*", "+@all", "-evalsha")
        client.execute_command("ACL SETUSER", "elsewhere", "reset", "on", ">PASSWORD", "~other:*", "+@all")
    assert "its user may not run evalsha" in refusal(Settings(redis_url=as_user(redis_server.url, "narrow")))
    assert "its user may not use keys of this prefix" in refusal(
        Settings(redis_url=as_user(redis_server.url, "elsewhere"))
    )
    assert redis_url


# -- when something breaks ---------------------------------------------------------------------------------------------


def cut_off(server: RedisServer) -> int:
    """Close our connections to *server*; how many there were."""
    with server.client() as client:
        ours = [one["id"] for one in client.client_list() if one["name"] == connection.CLIENT_NAME]
        return sum(client.client_kill_filter(_id=number) for number in ours)


@pytest.mark.parametrize("kind", ["plain", "socket file", "tls", "sentinels", "cluster"])
def test_a_connection_that_was_closed_while_idle_is_replaced_without_an_error(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {"app_name": f"idle {kind}"}
    if kind in {"plain", "socket file"}:
        running = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "redis.sock"))
        request.addfinalizer(running.stop)
        servers: list[RedisServer] = [running.start()]
        settings["redis_url"] = running.url if kind == "plain" else f"unix://{tmp_path / 'redis.sock'}"
    else:
        shared = request.getfixturevalue(kind)
        settings["redis_url"] = shared.url
        servers = [shared] if kind == "tls" else shared.nodes
    if kind == "tls":
        settings["redis_ssl_ca_certs"] = str(shared.authority.ca_file)
    with closing(RedisStore(Settings(**settings))) as store:
        for sequence in (1, 2, 3):
            store.apply(batch(sequence))
            assert sum(map(cut_off, servers)) == (2 if kind == "sentinels" else 1), "connections of a worker"
        assert store.read().tasks["scan"].counts["count"] == 3


def test_after_an_error_there_is_a_new_connection(sentinels: Sentinels) -> None:
    """So that a server which only refuses, as a primary that was demoted does, is not asked for ever."""
    primary = next(server for server in sentinels.nodes if server.port == sentinels.primary_port())
    with (
        closing(RedisStore(Settings(redis_url=sentinels.url, app_name="refused"))) as store,
        primary.client() as client,
    ):
        store.apply(batch(1))
        client.config_set("min-replicas-to-write", "5")
        try:
            with pytest.raises(StoreError, match="too few of its replicas"):
                store.apply(batch(2))
        finally:
            client.config_set("min-replicas-to-write", "0")
        assert sum(map(cut_off, sentinels.nodes)) == 0
        store.apply(batch(2))
        assert store.read().tasks["scan"].counts["count"] == 2


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "sentinel"])
def test_who_does_not_answer_is_asked_once(scheme: str) -> None:
    asked: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                asked.append(time.monotonic())
                caller.recv(100)
                caller.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}" + "?master_name=m" * (scheme == "sentinel")
            refusal(Settings(redis_url=url))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"min-replicas-to-write": "1"}, "too few of its replicas are up to date"),
        ({"REPLICAOF": "127.0.0.1 1"}, "it is a read-only replica; give the URL of the primary"),
        ({"maxclients": "1"}, "it has no place for another client"),
        ({"requirepass": "sesame"}, "it wants a user name and password"),
        ({"save": "3600 1", "BGSAVE": ""}, "it cannot save to its disk"),
        ({"SET": "celery-argsize:{celery}:names text"}, "a key of ours holds something else"),
        ({"SET": "celery-argsize:apps text"}, "a key of ours holds something else"),
        (
            {"SET": "celery-argsize:{celery}:task:scan text"},
            "its key celery-argsize:{celery}:task:scan is none of ours",
        ),
    ],
)
def test_what_a_server_refuses_is_said_with_the_fix(tmp_path: Path, config: dict[str, str], said: str) -> None:
    (tmp_path / "server").mkdir()
    server = RedisServer(tmp_path / "server")
    with started(server), server.client() as client:
        for name, value in config.items():
            if name == "BGSAVE":
                shutil.rmtree(server.folder)
                client.execute_command("BGSAVE")
                wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="a failed save")
            elif name.isupper():
                client.execute_command(name, *value.split())
            else:
                client.config_set(name, value)
        with closing(RedisStore(Settings(redis_url=server.url))) as store, pytest.raises(StoreError) as caught:
            store.apply(batch(1))
        assert said in str(caught.value)


def test_a_server_that_quotes_what_it_does_not_know_gives_no_password_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--requirepass", "sesame", "--rename-command", "HELLO", "nobody")
    server.password = "sesame"
    server.start()
    try:
        settings = Settings(redis_url=server.url.replace("://", "://:sesame@"))
        said = refusal(settings)
        assert said.endswith("it does not know RESP3; add ?protocol=2 to the URL")
        assert "sesame" not in said
        assert written(replace(settings, redis_url=f"{settings.redis_url}?protocol=2")) == 1
    finally:
        server.stop()


def test_an_unknown_host_and_a_wrong_password_are_told_without_secrets(redis_server: RedisServer) -> None:
    assert "its host name is not known here" in refusal(Settings(redis_url="redis://:sesame@no-such-host.invalid/0"))
    address = f"127.0.0.1:{redis_server.port}"
    said = refusal(Settings(redis_url=f"redis://nobody:sesame@{address}"))
    assert "it wants a user name and password other than the URL's" in said
    assert "sesame" not in said
    assert "take it out" in refusal(Settings(redis_url=f"redis://:sesame@{address}?protocol=2"))


def test_an_option_that_redis_py_does_not_know_is_refused_before_anything_connects() -> None:
    for url in ("redis://h?colour=red", "redis://h?ssl_ca_certs=ca.pem", "sentinel://h?master_name=m&colour=red"):
        with pytest.raises(ConfigError, match="redis_url = .* cannot work"):
            RedisStore(Settings(redis_url=url))


@pytest.mark.parametrize("kind", ["tls", "sentinels", "cluster"])
def test_the_thread_that_connects_imports_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """A fork while a thread imports would leave that import locked in the child."""
    server = request.getfixturevalue(kind)
    ca = {"redis_ssl_ca_certs": str(server.authority.ca_file)} if kind == "tls" else {}
    code = f"""
import sys, threading
from celery_argsize.settings import Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore
from celery_argsize.figures.counters import TaskStats
store = RedisStore(Settings(redis_url={server.url!r}, app_name="imports", **{ca!r}))
store.prepare()
before = set(sys.modules)
batch = Batch("w", 1, {{"scan": TaskStats({{"count": 1}}, {{}})}})
thread = threading.Thread(target=store.apply, args=(batch,))
thread.start()
thread.join()
print(store.read().tasks["scan"].counts["count"], sorted(set(sys.modules) - before))
store.close()
"""
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert (done.stdout, done.stderr) == ("1 []\n", "")
