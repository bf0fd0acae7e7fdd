"""Settings: where they come from, which win, and what is said of those that cannot work."""

from __future__ import annotations

import re
import ssl
from dataclasses import fields
from typing import Any

import pytest
from celery import Celery
from support import ROOT

import celery_argsize
from celery_argsize import ConfigError
from celery_argsize.config import DEFAULT_BUCKETS, Settings, resolve
from celery_argsize.redis_url import parse_redis_url, safe_url

NAMES = [spec.name for spec in fields(Settings) if spec.metadata]


def test_defaults() -> None:
    settings = resolve({}, environ={})
    assert settings.redis_url is None
    assert settings.flush_interval == 1.0
    assert settings.large_task_chars == 1024
    assert settings.max_task_names == 1000
    assert settings.histogram_buckets == DEFAULT_BUCKETS
    assert settings.key_prefix == "celery-argsize"


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
        ({"broker_url": "sentinel://a;redis://b"}, "redis://b"),
        ({"broker_url": "redis://a/1", "argsize_redis_url": "redis://c/9"}, "redis://c/9"),
    ],
)
def test_the_redis_of_the_app_is_found(conf: dict[str, Any], url: str | None) -> None:
    app = Celery("music")
    app.conf.update(conf)
    assert resolve({}, app, {}).redis_url == url


def test_tls_options_come_along() -> None:
    app = Celery("music", broker="redis://a/1")
    app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "ca.pem"}
    settings = resolve({}, app, {})
    assert settings.redis_url == "rediss://a/1"
    assert settings.redis_options == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "ca.pem"}


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("redis://h", "redis://h"),
        ("redis+socket:///tmp/r.sock?virtual_host=3", "unix:///tmp/r.sock?db=3"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "rediss://h/0?ssl_cert_reqs=none"),
    ],
)
def test_celerys_spelling_becomes_redis_pys(url: str, parsed: str) -> None:
    assert parse_redis_url(url) == parsed


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
