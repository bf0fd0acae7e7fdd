"""Which Redis an app uses for what, and what Celery checks of its certificate, against Celery itself."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from celery_argsize.connections.budget import server_of
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.look.redis import places_of
from celery_argsize.stores.connection import connect

if TYPE_CHECKING:
    from celery_argsize.doctor.redis_facts import Place, Role


def of_role(app: Celery, role: Role) -> Place:
    (found,) = [one for one in places_of(Scope(app)) if one.role == role]
    return found


@pytest.mark.parametrize(
    ("broker", "use_ssl", "expected"),
    [
        ("redis://h/0", None, ""),
        ("rediss://h/0", None, "none"),
        ("rediss://h/0?ssl_cert_reqs=required", None, "required"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", None, "none"),
        ("rediss://h/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "required"),
        ("redis://h/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "required"),
        ("redis://h/0", {"ssl_ca_certs": "/ca.pem"}, "required"),
        ("rediss://h/0", {"ssl_cert_reqs": None}, "none"),
    ],
)
def test_it_is_known_what_celery_checks_of_a_brokers_certificate(broker: str, use_ssl: Any, expected: str) -> None:
    app = Celery("proj", broker=broker)
    app.conf.broker_use_ssl = use_ssl
    assert of_role(app, "messages").certificates == expected
    used = app.connection_for_read().ssl  # kombu's own view of it
    checks = used.get("ssl_cert_reqs", ssl.CERT_REQUIRED) if isinstance(used, dict) else "no TLS"
    assert (checks != "no TLS") == bool(expected)
    if expected:
        assert (checks == ssl.CERT_REQUIRED) == (expected == "required")


@pytest.mark.parametrize(
    ("backend", "use_ssl", "checks"),
    [
        ("rediss://h/0?ssl_cert_reqs=required", None, "required"),
        ("rediss://h/0?ssl_cert_reqs=none", None, "none"),
        ("rediss://h/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "required"),
    ],
)
def test_it_is_known_what_celery_checks_of_a_backends_certificate(backend: str, use_ssl: Any, checks: str) -> None:
    app = Celery("proj", broker="memory://", backend=backend)
    app.conf.redis_backend_use_ssl = use_ssl
    found = of_role(app, "results")
    assert found.certificates == checks
    options = app.backend.connparams  # type: ignore[attr-defined]
    assert (options["ssl_cert_reqs"] == ssl.CERT_REQUIRED) == (checks == "required")


def test_roles_share_a_server_whatever_their_databases_and_users() -> None:
    app = Celery("proj", broker="redis://a:b@localhost:6379/1", backend="redis://127.0.0.1/2")
    app.conf.argsize_redis_url = "redis://localhost:6379/3"
    found = places_of(Scope(app))
    assert {one.address for one in found} == {"127.0.0.1:6379"}
    assert {one.role: one.database for one in found} == {"messages": 1, "results": 2, "figures": 3}
    assert "a:b" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "redis://[::1]:6380/0",
        "redis://LOCALHOST:6380/3",
        "redis://127.0.0.1/0",
        "rediss://u:p@Some.Host:1/0",
        "redis://[2001:db8::1]:6379/0",
        "redis+socket:///run/redis.sock?virtual_host=2",
        "sentinel://localhost:1;sentinel://h:2",
        "redis+cluster://b:1,a:2",
    ],
)
def test_a_server_is_called_as_the_connection_budget_calls_it(url: str) -> None:
    assert of_role(Celery("proj", broker=url), "messages").address == server_of(url)


@pytest.mark.parametrize(
    "conf",
    [
        {"result_backend": "redis"},
        {"result_backend": "redis", "redis_host": "h", "redis_port": 7, "redis_db": 3, "redis_password": "p#w/x"},
        {"result_backend": "redis://", "redis_host": "h"},
        {"result_backend": "redis://h/2", "redis_password": "x", "redis_port": 9, "redis_host": "other"},
        {"result_backend": "redis://u:p@h:1/2", "redis_password": "x", "redis_port": 9, "redis_username": "y"},
        {"result_backend": "redis://:5/2", "redis_username": "u"},
        {"result_backend": "redis://[::1]:5/2", "redis_username": "u", "redis_db": 7},
    ],
)
def test_what_the_url_of_results_leaves_out_is_as_celery_has_it(conf: dict[str, Any]) -> None:
    app = Celery("proj", broker="memory://")
    app.conf.update(conf)
    used = app.backend.connparams  # type: ignore[attr-defined]
    found = connect(of_role(app, "results").settings).connection_pool.connection_kwargs  # type: ignore[union-attr]
    names = ("host", "port", "db", "username", "password")
    assert [found.get(name) or 0 for name in names] == [used.get(name) or 0 for name in names]


def test_another_broker_than_redis_leaves_the_other_roles() -> None:
    app = Celery("proj", broker="amqp://guest:guest@h//", backend="redis://h/0")
    assert [one.role for one in places_of(Scope(app))] == ["results", "figures"]


def test_a_broker_written_to_elsewhere_is_a_server_of_its_own() -> None:
    app = Celery("proj")
    app.conf.update(broker_read_url="redis://one/0", broker_write_url="redis://two/0")
    urls = [one.url for one in places_of(Scope(app)) if one.role == "messages"]
    assert sorted(urls) == ["redis://one/0", "redis://two/0"]
