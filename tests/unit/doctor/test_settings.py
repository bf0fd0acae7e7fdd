"""What the doctor makes of settings: real apps, configured as people configure them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS

from celery_argsize.doctor.app import setting, spelled
from celery_argsize.doctor.checks import Outcome
from celery_argsize.doctor.facts import CeleryProcess, Facts, HostFacts, LookResult, Node, Scope, WorkerFacts
from celery_argsize.doctor.judge.settings import CHECKS

REDIS = "redis://localhost:6379/0"
BY_ID = {check.id.partition(".")[2]: check for check in CHECKS}
GB = 1 << 30


def app_with(broker: str = REDIS, backend: str | None = REDIS, **conf: Any) -> Celery:
    app = Celery("shop", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(conf)

    @app.task(name="buy", shared=False)
    def buy() -> None:
        """Do nothing."""

    return app


def django_like(**settings: Any) -> Celery:
    app = Celery("site", broker=REDIS, set_as_current=False)
    app.config_from_object(type("Settings", (), {"DEBUG": True, **settings}), namespace="CELERY")
    return app


def facts_of(app: Celery, nodes: tuple[Node, ...] = (), host: HostFacts | None = None) -> Facts:
    app.finalize()
    nothing: LookResult[Any] = LookResult(why_not="not looked at")
    workers = LookResult(WorkerFacts(nodes=nodes)) if nodes else nothing
    return Facts(Scope(app), nothing, workers, nothing, LookResult(host) if host else nothing)


def judged(name: str, app: Celery, **known: Any) -> list[Outcome]:
    outcome = BY_ID[name].judge(facts_of(app, **known))
    return [outcome] if isinstance(outcome, Outcome) else [*outcome]


def one(name: str, app: Celery, **known: Any) -> Outcome:
    (outcome,) = judged(name, app, **known)
    return outcome


def host(memory: int = 4 * GB, *processes: CeleryProcess, **more: Any) -> HostFacts:
    return HostFacts(hostname="h", cpus=2, memory_total=memory, memory_available=memory, processes=processes, **more)


SANE = [
    app_with(),
    app_with(broker="amqp://", backend=None),
    app_with(broker="sqs://", backend="db+sqlite:///x.sqlite"),
    app_with(worker_max_tasks_per_child=500, worker_prefetch_multiplier=1, broker_pool_limit=10, worker_concurrency=4),
    app_with(worker_max_memory_per_child=512_000, redis_max_connections=50, redis_socket_timeout=30.0),
    app_with(task_time_limit=300, task_soft_time_limit=240, task_acks_late=True, task_reject_on_worker_lost=True),
    app_with(broker_transport_options={"visibility_timeout": 43_200, "socket_timeout": 30, "master_name": "x"}),
    app_with(result_expires=timedelta(hours=1), timezone="Europe/Paris", accept_content=["json", "yaml"]),
    app_with(task_ignore_result=True, result_expires=None),
    app_with(broker_pool_limit=None),
    Celery("bare", set_as_current=False),
    django_like(CELERY_TASK_TIME_LIMIT=300, CELERY_WORKER_CONCURRENCY=2, CELERY_TIMEZONE="Africa/Douala"),
]


@pytest.mark.parametrize("app", SANE)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_sane_app_gets_no_alarm(app: Celery, check: Any) -> None:
    outcome = check.judge(facts_of(app))

    assert {one.verdict for one in ([outcome] if isinstance(outcome, Outcome) else outcome)} <= {"ok"}


# --- names


def test_the_settings_of_the_seed_that_celery_does_not_know_are_named() -> None:
    app = app_with(worker_heartbeat=300, worker_clock_sync_interval=300)

    clock, heartbeat = judged("names", app)

    assert heartbeat.figure == "worker_heartbeat; the nearest that it knows is broker_heartbeat"
    assert "Redis ignores it" in heartbeat.reason
    assert "--heartbeat-interval" in heartbeat.reason
    assert clock.figure == "worker_clock_sync_interval"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("worker_prefetch_multiplyer", "worker_prefetch_multiplier"),
        ("task_acks_lat", "task_acks_late"),
        ("broker_pool_limt", "broker_pool_limit"),
        ("result_expire", "result_expires"),
        ("redis_max_conections", "redis_max_connections"),
        ("timezon", "timezone"),
        ("time_limit", "task_time_limit"),
        ("max_tasks_per_child", "worker_max_tasks_per_child"),
        ("worker_acks_late", "task_acks_late"),
        ("worker_foo", ""),
    ],
)
def test_a_misspelled_setting_is_named_with_the_one_that_was_meant(written: str, meant: str) -> None:
    conf: dict[str, Any] = {written: 1}

    outcome = one("names", app_with(**conf))

    assert outcome.verdict == "warn"
    assert outcome.figure == (f"{written}; the nearest that it knows is {meant}" if meant else written)
    assert outcome.fix == (f"rename {written} to {meant}" if meant else f"remove {written}")


def test_names_of_a_namespace_are_shown_as_they_are_written() -> None:
    app = django_like(
        CELERY_WORKER_HEARTBEAT=300, CELERY_TASK_TIMELIMIT=3, CELERY_POOL_LIMIT=4, CELERY_VISIBILITY_TIMEOUT=60
    )

    pool, limit, visibility, heartbeat = judged("names", app)

    assert pool.fix == "rename CELERY_POOL_LIMIT to CELERY_BROKER_POOL_LIMIT"
    assert limit.fix == "rename CELERY_TASK_TIMELIMIT to CELERY_TASK_TIME_LIMIT"
    assert 'broker_transport_options["visibility_timeout"]' in visibility.reason
    assert heartbeat.figure == "CELERY_WORKER_HEARTBEAT; the nearest that it knows is CELERY_BROKER_HEARTBEAT"


def test_names_from_before_celery_4_are_known() -> None:
    app = Celery("old", set_as_current=False)
    names = {"BROKER_URL": REDIS, "CELERYD_CONCURRENCY": 2, "CELERY_ACKS_LATE": True}
    app.config_from_object(type("Settings", (), names))

    assert one("names", app).verdict == "ok"


def test_settings_for_a_namespace_in_an_app_without_one_are_named() -> None:
    app = Celery("forgetful", set_as_current=False)
    app.config_from_object(type("Settings", (), {"BROKER_URL": REDIS, "CELERY_TASK_TIME_LIMIT": 3}))

    outcome = one("names", app)

    assert outcome.figure.startswith("CELERY_TASK_TIME_LIMIT;")
    assert "namespace" in outcome.fix


def test_every_setting_of_celery_is_known_however_it_is_spelled() -> None:
    values: dict[str, Any] = dict.fromkeys(SETTING_KEYS, None)

    assert one("names", app_with(**values)).verdict == "ok"
    django = django_like(**{f"CELERY_{name.upper()}": None for name in SETTING_KEYS})
    assert one("names", django).verdict == "ok"


def test_peoples_own_settings_and_those_of_extensions_are_left_alone() -> None:
    own = (
        "my_flag",
        "redis_url",
        "database_urls",
        "max_retries",
        "redis_user",
        "broker_username",
        "result_db",
        "celery_x",
    )
    theirs = ("argsize_flush_interval", "redbeat_redis_url", "beat_dburi", "singleton_backend_url", "once")
    more = ("redis_backend_health_check_interval", "redis_client_name")
    conf: dict[str, Any] = dict.fromkeys((*own, *theirs, *more), 1)
    assert one("names", app_with(**conf)).verdict == "ok"

    names = (
        "DJANGO_CELERY_BEAT_TZ_AWARE",
        "CELERY_ENABLED",
        "CELERY_LOG_LEVEL",
        "CELERY_REDIS_URL",
        "TASK_FORCE",
        "CELERYD_CONCURRENCY",
    )
    django = django_like(**dict.fromkeys(names, 1), CELERY_ARGSIZE_LARGE_TASK_CHARS=1)
    assert one("names", django).verdict == "ok"


def test_a_module_of_settings_may_hold_imports_functions_and_parts_of_settings() -> None:
    module = ModuleType("celeryconfig")
    vars(module).update(
        broker_url=REDIS,
        task_helper=lambda: 1,
        worker_class=int,
        task_module=pytest,
        default_queue="x",
        task_default_queue="x",
    )
    app = Celery("modular", set_as_current=False)
    app.config_from_object(module)

    assert one("names", app).verdict == "ok"


# --- memory


def test_a_memory_limit_in_bytes_fails_and_the_right_number_is_given() -> None:
    outcome = one("max_memory", app_with(worker_max_memory_per_child=524_288_000))

    assert outcome.verdict == "fail"
    assert outcome.figure == "524,288,000 KiB, 500.0 GB for each child"
    assert outcome.fix == "app.conf.worker_max_memory_per_child = 512000  # KiB: 500.0 MB"


def test_a_limit_below_what_a_child_takes_fails() -> None:
    assert one("max_memory", app_with(worker_max_memory_per_child=20_000)).verdict == "fail"


# --- the others


@pytest.mark.parametrize(
    ("check", "conf", "verdict", "fix"),
    [
        ("prefetch", {"worker_prefetch_multiplier": 0}, "warn", "app.conf.worker_prefetch_multiplier = 1"),
        ("prefetch", {"worker_prefetch_multiplier": 0, "worker_disable_prefetch": True}, "ok", ""),
        ("redis_max_connections", {"redis_max_connections": 1}, "fail", "app.conf.redis_max_connections = 4"),
        ("result_expires", {"result_expires": None}, "warn", "app.conf.result_expires = 3600"),
        ("result_expires", {"result_expires": 0}, "warn", "app.conf.result_expires = 3600"),
        ("startup_retry", {"broker_connection_retry_on_startup": False}, "warn", "retry_on_startup = True"),
        ("startup_retry", {"broker_connection_retry": False}, "warn", "retry_on_startup = True"),
        ("time_limit", {"task_time_limit": 10, "task_soft_time_limit": 10}, "warn", "task_soft_time_limit = 8.0"),
        ("serializer", {"accept_content": ["json", "pickle"]}, "warn", "app.conf.accept_content = ['json']"),
        ("serializer", {"task_serializer": "pickle"}, "fail", "app.conf.task_serializer = 'json'"),
        ("serializer", {"accept_content": ["application/json"], "task_serializer": "yaml"}, "fail", "'yaml']"),
    ],
)
def test_what_cannot_go_well_is_said_with_the_line_that_mends_it(
    check: str, conf: dict[str, Any], verdict: str, fix: str
) -> None:
    (outcome,) = {found.verdict: found for found in judged(check, app_with(**conf))}.values()

    assert outcome.verdict == verdict
    assert fix in outcome.fix


def test_a_late_task_that_may_run_longer_than_the_visibility_timeout_warns() -> None:
    app = app_with(task_time_limit=60)

    @app.task(name="render", acks_late=True, time_limit=7200, shared=False)
    def render() -> None:
        """Do nothing."""

    outcome = one("visibility_timeout", app)

    assert outcome.verdict == "warn"
    assert outcome.figure == "3,600 s, and render may run for 7,200 s"
    assert outcome.fix == "app.conf.broker_transport_options = {'visibility_timeout': 10800}"


def test_the_same_limit_is_fine_where_messages_are_acknowledged_early_or_by_rabbitmq() -> None:
    assert one("visibility_timeout", app_with(task_time_limit=7200)).verdict == "ok"
    assert judged("visibility_timeout", app_with(broker="amqp://", task_time_limit=7200, task_acks_late=True)) == []


def test_a_task_held_for_longer_than_the_visibility_timeout_fails() -> None:
    node = Node(name="celery@h", longest_eta=86_400.0)

    assert one("visibility_timeout", app_with(), nodes=(node,)).verdict == "fail"
    assert one("visibility_timeout", app_with(), nodes=(replace(node, longest_eta=3_000.0),)).verdict == "ok"


def test_a_fix_never_shows_the_other_options_of_the_transport() -> None:
    options = {"sentinel_kwargs": {"password": "hunter2"}, "visibility_timeout": 60}
    app = app_with(broker_transport_options=options, task_acks_late=True, task_time_limit=120)

    outcome = one("visibility_timeout", app)

    assert outcome.fix == "app.conf.broker_transport_options['visibility_timeout'] = 3600"
    assert "hunter2" not in str([check.judge(facts_of(app)) for check in CHECKS])


def test_a_setting_is_spelled_as_the_app_reads_it() -> None:
    assert setting(app_with(), "task_time_limit", 5) == "app.conf.task_time_limit = 5"
    assert setting(django_like(), "task_time_limit", 5) == "CELERY_TASK_TIME_LIMIT = 5"
    assert spelled(Celery("x", namespace="proj_", set_as_current=False), "task_time_limit") == "proj_task_time_limit"
    assert setting(None, "timezone", "UTC") == "app.conf.timezone = 'UTC'"
