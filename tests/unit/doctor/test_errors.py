"""What errors of a Redis or another broker mean, and what to type: one table for both."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from celery_argsize.doctor.errors import CAUSES, fix_for, why_not

URL = "redis://box:6379/0"


def app_with(broker: str = URL, **conf: Any) -> Celery:
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.update(conf)
    return app


@pytest.mark.parametrize("why", [cause.meaning for cause in CAUSES if cause.meaning])
@pytest.mark.parametrize("url", [URL, "amqp://box:5672//"])
def test_each_cause_has_a_fix_of_its_own(url: str, why: str) -> None:
    fix = fix_for(app_with(url), url, why)
    assert "{" not in fix.replace("{'", "").replace('{"', "")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("WRONGPASS invalid username-password pair", "app.conf.broker_url = 'redis://:PASSWORD@box:6379/0'"),
        ("Error 111 connecting to box:6379. Connection refused.", "redis-cli -u redis://box:6379/0 ping"),
        ("Error while reading: (104, 'Connection reset by peer')", "app.conf.broker_url = 'rediss://:PASSWORD@box"),
        ("DB index is out of range", "a number below its setting databases"),
        ("You can't write against a read only replica.", "INFO replication"),
        ("max number of clients reached", "argsize doctor --apply-pool-shrink"),
    ],
)
def test_the_fix_is_that_of_the_cause(said: str, fix: str) -> None:
    assert fix in fix_for(app_with(), URL, why_not(ConnectionError(said)))


def test_a_vhost_that_is_refused_is_no_port_that_is_refused() -> None:
    why = why_not(ConnectionError("Connection.open: (530) NOT_ALLOWED - access to vhost 'a b' refused for user 'u'"))
    assert "vhost" in why
    assert "rabbitmqctl add_vhost NAME" in fix_for(app_with("amqp://box"), "amqp://box:5672/a%20b", why)


def test_fixes_are_written_as_the_app_writes_its_settings() -> None:
    django = Celery("site", set_as_current=False)
    settings = {"CELERY_BROKER_URL": URL}
    django.config_from_object(type("Settings", (), settings), namespace="CELERY")
    login = "it wants another user name and password"
    assert "\nCELERY_BROKER_URL = 'redis://" in fix_for(django, URL, login)
    untrusted = "its certificate is not signed by a CA known here"
    assert 'CELERY_BROKER_USE_SSL = {"ssl_cert_reqs"' in fix_for(django, URL, untrusted)
    apart = app_with(broker_read_url="redis://reading:6379/0")
    assert "app.conf.broker_read_url = " in fix_for(apart, "redis://reading:6379/0", login)
    several = app_with("redis://a:6379/0;redis://b:6379/0")
    assert "  # with the others of the list\n" in fix_for(several, "redis://a:6379/0", login)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sentinel://a:26379", "'sentinel://:PASSWORD@a:26379'"),
        ("redis+socket:///run/redis.sock", "redis-cli -s /run/redis.sock ping"),
        ("amqps://box:5671//", "'amqps://USER:PASSWORD@box:5671//'"),
        ("rediss://box:6379/0", "'rediss://:PASSWORD@box:6379/0'"),
        ("mongodb://box/x", "app.conf.broker_url = 'mongodb://"),
    ],
)
def test_brokers_of_other_kinds_get_a_url_of_their_kind(url: str, line: str) -> None:
    assert line in fix_for(app_with(), url, "connection refused: nothing listens there")
