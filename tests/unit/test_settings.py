"""Settings: where they come from, which win, and what is said of those that cannot work."""

from __future__ import annotations

import re
import ssl
from dataclasses import fields
from typing import Any

import pytest
from celery import Celery
from support.servers import ROOT

import celery_argsize
from celery_argsize import ConfigError
from celery_argsize.redis_url import parse_redis_url, safe_url
from celery_argsize.settings import DEFAULT_BUCKETS, Settings, resolve

NAMES = [spec.name for spec in fields(Settings) if spec.metadata]


def test_defaults() -> None:
    settings = resolve({}, environ={})
    assert settings.redis_url is None
    assert settings.flush_interval == 1.0
    assert settings.large_task_chars == 1024
    assert settings.max_task_names == 1000
    assert settings.histogram_buckets == DEFAULT_BUCKETS
    assert settings.key_prefix == "celery-argsize"


@pytest.mark.smoke
def test_a_keyword_wins_over_the_app_over_the_environment_over_the_default() -> None:
    app = Celery("music")
    environ = {"CELERY_ARGSIZE_LARGE_TASK_CHARS": "1"}
    assert resolve({}, app, environ).large_task_chars == 1
    app.conf.argsize_large_task_chars = 2
    assert resolve({}, app, environ).large_task_chars == 2
    assert resolve({"large_task_chars": 3}, app, environ).large_task_chars == 3
    assert resolve({}, app, environ).app_name == "music"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flush_interval", "often"),
        ("flush_interval", 0),
        ("flush_interval", float("nan")),
        ("flush_interval", True),
        ("large_task_chars", -1),
        ("large_task_chars", 1.5),
        ("max_task_names", 0),
        ("histogram_buckets", []),
        ("histogram_buckets", [3, 2]),
        ("histogram_buckets", "1,two"),
        ("histogram_buckets", 7.5),
        ("log_large_tasks", "perhaps"),
        ("key_prefix", "a{b}"),
        ("key_prefix", ""),
        ("app_name", 3),
        ("redis_url", "amqp://localhost"),
        ("redis_url", "localhost:6379"),
        ("redis_url", 6379),
        ("redis_ssl_cert_reqs", "perhaps"),
        ("redis_ssl_ca_certs", " "),
        ("redis_ssl_check_hostname", "perhaps"),
        ("require_redis_ssl", "perhaps"),
        ("prometheus_port", 0),
        ("prometheus_port", 65536),
        ("prometheus_port", "http"),
        ("prometheus_host", ""),
        ("prometheus_certfile", " "),
        ("enabled", None.__class__),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(name: str, value: Any) -> None:
    for source in ("keyword", "app", "environment"):
        app = Celery("music", set_as_current=False)
        overrides, environ = {}, {}
        if source == "keyword":
            overrides = {name: value}
        elif source == "app":
            app.conf[f"argsize_{name}"] = value
        else:
            environ = {f"CELERY_ARGSIZE_{name.upper()}": str(value)}
            if name == "app_name" or not str(value):
                continue  # as a text, "3" is a name, and nothing is unset
        with pytest.raises(ConfigError) as caught:
            resolve(overrides, app, environ)
        said = str(caught.value)
        assert name in said.lower()
        assert "allowed: " in said
        assert name == "redis_url" or repr(value) in said or repr(str(value)) in said


def test_an_unknown_setting_is_named_wherever_it_is() -> None:
    app = Celery("music")
    with pytest.raises(ConfigError, match="flush_intervall is not a setting .*flush_interval"):
        celery_argsize.install(app, flush_intervall=1)
    with pytest.raises(ConfigError, match="CELERY_ARGSIZE_COLOR is not a setting"):
        resolve({}, app, {"CELERY_ARGSIZE_COLOR": "red"})
    app.conf.argsize_color = "red"
    with pytest.raises(ConfigError, match="argsize_color is not a setting"):
        resolve({}, app, {})


def test_environment_words() -> None:
    environ = {
        "CELERY_ARGSIZE_ENABLED": "no",
        "CELERY_ARGSIZE_HISTOGRAM_BUCKETS": "10, 20,30",
        "CELERY_ARGSIZE_FLUSH_INTERVAL": "0.5",
        "CELERY_ARGSIZE_REDIS_URL": "",  # as a compose file passes on what nobody set
        "CELERY_ARGSIZE_REPORT_JSON": "1",  # click's own name for an option of ours
    }
    settings = resolve({}, environ=environ)
    assert (settings.enabled, settings.histogram_buckets, settings.flush_interval) == (False, (10, 20, 30), 0.5)


@pytest.mark.parametrize(
    ("conf", "url"),
    [
        ({"broker_url": "redis://a/1"}, "redis://a/1"),
        ({"broker_url": "redis://a/1", "result_backend": "redis://b/2"}, "redis://b/2"),
        ({"broker_url": "redis://a/1", "result_backend": "rpc://"}, "redis://a/1"),
        ({"broker_url": "amqp://a//", "result_backend": "redis://b/2"}, "redis://b/2"),
        ({"broker_url": "amqp://a//"}, None),
        ({"broker_url": "memory://"}, None),
        ({"broker_url": ["amqp://a//", "rediss://c/3"]}, "rediss://c/3"),
        ({"broker_url": "sentinel://a;redis://b"}, "sentinel://a"),
        ({"broker_url": "sentinel://a:26379/1;sentinel://b"}, "sentinel://a:26379/1;sentinel://b"),
        ({"broker_url": ["amqp://h", "sentinel://a", "sentinel://b"]}, "sentinel://a;sentinel://b"),
        ({"broker_url": "amqp://h//;redis://:se%3Bsame@b"}, "redis://:se%3Bsame@b"),
        ({"broker_url": "redis://a/1", "argsize_redis_url": "redis://c/9"}, "redis://c/9"),
        ({"broker_url": "amqp://h//", "result_backend": "redis", "redis_db": 3}, "redis:///3"),
        ({"broker_url": "redis://a/1", "result_backend": "redis://", "redis_host": "h"}, "redis://h:6379"),
        ({"broker_url": ["redis://a", "redis+cluster://b", "redis+cluster://c"]}, "redis://a"),
    ],
)
@pytest.mark.smoke
def test_the_redis_of_the_app_is_found(conf: dict[str, Any], url: str | None) -> None:
    app = Celery("music")
    app.conf.update(conf)
    assert resolve({}, app, {}).redis_url == url


@pytest.mark.smoke
def test_tls_options_come_along() -> None:
    app = Celery("music", broker="redis://a/1")
    app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "ca.pem"}
    settings = resolve({}, app, {})
    assert settings.redis_url == "rediss://a/1"
    assert settings.redis_options == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "ca.pem"}


def test_what_sentinels_need_comes_along() -> None:
    app = Celery("music", broker="sentinel://a;sentinel://b", set_as_current=False)
    app.conf.broker_transport_options = {"master_name": "m", "sentinel_kwargs": {"password": "sesame"}, "queue": 1}
    app.conf.broker_use_ssl = {"ssl_cert_reqs": "none"}
    settings = resolve({}, app, {})
    assert settings.redis_url == "rediss+sentinel://a;rediss+sentinel://b"
    assert settings.redis_options == {
        "master_name": "m",
        "sentinel_kwargs": {"password": "sesame"},
        "ssl_cert_reqs": "none",
    }
    assert "sesame" not in repr(settings)


def test_the_environments_redis_url_comes_last() -> None:
    app = Celery("music", broker="amqp://h", set_as_current=False)
    environ = {"REDIS_URL": "redis://last/5"}
    assert resolve({}, app, environ).redis_url == "redis://last/5"
    assert resolve({}, None, environ).redis_url == "redis://last/5"
    assert resolve({}, app, {"REDIS_URL": ""}).redis_url is None
    app.conf.update(result_backend="redis://results/4")
    assert resolve({}, app, environ).redis_url == "redis://results/4"
    environ["CELERY_ARGSIZE_REDIS_URL"] = "redis://named/3"
    assert resolve({}, app, environ).redis_url == "redis://named/3"
    app.conf.argsize_redis_url = "redis://conf/2"
    assert resolve({}, app, environ).redis_url == "redis://conf/2"
    assert resolve({"redis_url": "redis://keyword/1"}, app, environ).redis_url == "redis://keyword/1"
    with pytest.raises(ConfigError, match=r"REDIS_URL = http://h/x cannot work \(the scheme 'http' is not one of"):
        resolve({}, None, {"REDIS_URL": "http://user:sesame@h/x"})


@pytest.mark.parametrize(
    ("url", "raised"),
    [
        ("redis://u:p@h:1/2?db=3", "rediss://u:p@h:1/2?db=3"),
        ("rediss://h", "rediss://h"),
        ("unix:///r.sock", "unix:///r.sock"),
        ("redis+socket:///r.sock", "redis+socket:///r.sock"),
        ("redis+cluster://a,b", "rediss+cluster://a,b"),
        ("sentinel://a?master_name=m;sentinel://b", "rediss+sentinel://a?master_name=m;rediss+sentinel://b"),
    ],
)
def test_a_plain_url_is_raised_where_tls_is_required(url: str, raised: str) -> None:
    app = Celery("music", broker=url, set_as_current=False)
    for environ in ({"REQUIRE_REDIS_SSL": "true"}, {"CELERY_ARGSIZE_REQUIRE_REDIS_SSL": "1"}):
        assert resolve({}, app, environ).redis_url == raised
        assert resolve({"redis_url": url}, None, environ).redis_url == raised
        assert resolve({}, None, {**environ, "REDIS_URL": url}).redis_url == raised
    assert resolve({"require_redis_ssl": False}, app, {"REQUIRE_REDIS_SSL": "true"}).redis_url == url
    with pytest.raises(ConfigError, match="REQUIRE_REDIS_SSL = 'perhaps' cannot work; allowed: true or false"):
        resolve({}, app, {"REQUIRE_REDIS_SSL": "perhaps"})


@pytest.mark.parametrize(
    ("url", "kind", "urls"),
    [
        ("redis://h", "server", ["redis://h:6379"]),
        ("redis://:p@ss@[::1]/3", "server", ["redis://:p@ss@[::1]:6379/3"]),
        ("redis+socket:///tmp/r.sock?virtual_host=3", "server", ["unix:///tmp/r.sock?db=3"]),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "server", ["rediss://h:6379/0?ssl_cert_reqs=none"]),
        (
            "sentinel://u:p@a/2;sentinel://b:1?master_name=m",
            "sentinel",
            ["redis://u:p@a:26379/2", "redis://u:p@b:1/2"],
        ),
        ("rediss+sentinel://a,b:1?master_name=m", "sentinel", ["rediss://a:26379", "rediss://b:1"]),
        ("redis+cluster://u:p@a:1,b:2", "cluster", ["redis://u:p@a:1", "redis://u:p@b:2"]),
        ("rediss+cluster://a;rediss+cluster://b", "cluster", ["rediss://a:6379", "rediss://b:6379"]),
    ],
)
def test_every_spelling_becomes_redis_pys(url: str, kind: str, urls: list[str]) -> None:
    place = parse_redis_url(url)
    assert (place.kind, list(place.urls)) == (kind, urls)
    assert place.tls == urls[0].startswith("rediss")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:se#same@h/0", "percent-encoded: %23"),
        ("redis://:se/same@h/0", "percent-encoded: %23"),
        ("redis://:se?same@h/0", "percent-encoded: %23"),
        ("redis://:[same@h/0", "percent-encoded: %23"),
        ("redis://:12/same@h/0", "percent-encoded: %23"),
        ("redis://:12#same@h/0", "percent-encoded: %23"),
        ("redis://:12?same@h/0", "percent-encoded: %23"),
        ("redis://h:99999", "the port is not a number from 1 to 65535"),
        ("redis://h/three", "the database 'three' is not a number"),
        ("redis+cluster://h/3", "has no database but 0"),
        ("redis://a,b", "several hosts are for"),
        ("redis://a;redis://b", "several URLs must all be"),
        ("sentinel://a;redis+cluster://b", "several URLs must all be"),
        ("sentinel://a", r"end it in \?master_name="),
        ("rediss://h?ssl_cert_reqs=perhaps", "ssl_cert_reqs is not required, optional or none"),
        (f"redis://{'x' * 70}/0", "the host's name cannot be one"),
    ],
)
def test_a_url_that_cannot_work_is_told_why_without_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        resolve({"redis_url": url}, environ={})
    assert "same" not in str(caught.value)


def test_certificate_checks_are_named_as_anyone_names_them() -> None:
    for value in ("none", "CERT_NONE", ssl.CERT_NONE):
        assert resolve({"redis_ssl_cert_reqs": value}, environ={}).redis_ssl_cert_reqs == "none"
    assert resolve({"redis_ssl_cert_reqs": ssl.CERT_REQUIRED}, environ={}).redis_ssl_cert_reqs == "required"
    assert resolve({}, environ={"CELERY_ARGSIZE_REDIS_SSL_CHECK_HOSTNAME": "no"}).redis_ssl_check_hostname is False


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:sesame@host:6379/0",
        "redis://:se/same@host/0",
        "redis://:se#same@host/0",
        "rediss://host/0?password=sesame",
        "redis://:sesame@[::1]:6379/0",
        "://:sesame@host",
        "redis://:sesame@host:port/0",
        "redis://:12#same@host/0",
        "redis://same:12?34@host/0",
        "sentinel://:sesame@a;sentinel://:sesame@b?sentinel_password=sesame",
        "redis+cluster://:sesame@a,b",
    ],
)
def test_a_shown_url_has_no_secret(url: str) -> None:
    assert "same" not in safe_url(url)


def test_the_documented_settings_are_the_settings() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(NAMES)
    for name in NAMES:
        assert f"`CELERY_ARGSIZE_{name.upper()}`" in text
        assert f"`argsize_{name}`" in text


def test_every_error_is_an_argsize_error() -> None:
    for error in (celery_argsize.ConfigError, celery_argsize.StoreError, celery_argsize.SchemaError):
        assert issubclass(error, celery_argsize.ArgsizeError)
        assert str(error())
