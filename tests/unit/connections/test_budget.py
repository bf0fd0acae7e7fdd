"""Connections to Redis: what is counted, what fits, what the environment says."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.bin.celery import celery as celery_command
from hypothesis import given, strategies as st
from kombu import Exchange, Queue
from kombu.common import Broadcast

import celery_argsize
from celery_argsize import ConfigError, ConnectionBudget, connection_budget, connection_settings
from celery_argsize.connections.budget import server_of
from celery_argsize.connections.model import lines_of
from celery_argsize.worker import monitor as monitors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

REDIS = "redis://127.0.0.1:1/0"  # nobody listens there
VARIABLES = ("CELERY_POOL_LIMIT", "CELERY_MAX_CONNECTIONS", "CELERY_RESULT_MAX_CONNECTIONS", "CELERY_POOL_LIMIT_CAP")


def app(broker: str = REDIS, backend: str | None = REDIS, **conf: Any) -> Celery:
    made = Celery("counted", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(conf)
    return made


def count(budget: ConnectionBudget, who: str) -> int:
    return sum(item.most or 0 for item in budget.items if item.who == who)


@pytest.fixture(autouse=True)
def _nobody_stays_installed() -> Iterator[None]:
    yield
    for monitor in [*monitors.monitors.values()]:
        celery_argsize.uninstall(monitor.app)


class TestTheBudget:
    def test_says_what_each_process_opens(self) -> None:
        budget = connection_budget(app(), concurrency=3, workers=2, producers=2, beat=True)
        assert count(budget, "worker") == 2 * 13
        assert count(budget, "pool child") == 2 * 3 * 4
        assert count(budget, "producer") == 2 * 4
        assert (count(budget, "beat"), count(budget, "inspect")) == (3, 5)
        assert budget.at_most == 2 * 13 + 24 + 8 + 3 + 5 == budget.servers["127.0.0.1:1"]

    def test_fits_if_the_reserve_is_left(self) -> None:
        most = connection_budget(app(), concurrency=2).at_most or 0
        assert connection_budget(app(), most + 1, concurrency=2).fits
        assert not connection_budget(app(), most, concurrency=2).fits
        assert connection_budget(app(), most, concurrency=2, reserve=0).fits

    def test_adds_up_only_what_is_on_the_same_server(self) -> None:
        budget = connection_budget(app(backend="redis://other:7/3"), 30, concurrency=4)
        assert budget.servers == {"127.0.0.1:1": 10 + 8 + 2 + 4, "other:7": 2 + 1 + 8 + 2 + 1}
        assert budget.at_most == 24
        assert budget.fits

    @pytest.mark.parametrize(
        "backend",
        [
            "redis://localhost:1/7",
            "redis://LOCALHOST:1",
            "redis://:secret@[::1]:1/2",
            "rediss://:secret@127.0.0.1:1",
            "redis://127.0.0.1:1?db=2",
        ],
    )
    def test_takes_databases_of_one_server_for_one(self, backend: str) -> None:
        budget = connection_budget(app(backend=backend))
        assert list(budget.servers) == ["127.0.0.1:1"]
        assert "secret" not in str(budget) + json.dumps(budget.to_json())

    def test_takes_other_hosts_for_others(self) -> None:
        named = ["redis://redis.localhost:1/3", "redis://[::2]:1", "redis+socket:///run/r.sock", "redis+cluster://b,a"]
        expected = ["redis.localhost:1", "[::2]:1", "/run/r.sock", "a:6379,b:6379"]
        assert [server_of(url) for url in named] == expected
        assert connection_budget(app("redis://a;redis://b")).setup.read == "a:6379"
        assert connection_budget(app("amqp://h")).setup.read is None
        with pytest.raises(ConfigError, match="not a number"):
            server_of("redis://:secret@h/one")

    def test_counts_a_broker_that_is_no_redis_as_nothing(self) -> None:
        budget = connection_budget(app("amqp://guest@h//"), concurrency=2)
        assert {item.what for item in budget.items} == {
            "results",
            "writing and awaiting results",
            "celery_argsize",
            "celery_argsize, reading",
        }
        assert budget.settings is not None
        assert not any("broker" in line for line in lines_of(budget.settings))
        nothing = connection_budget(app("amqp://guest@h//", None))
        assert (nothing.at_most, nothing.fits, nothing.items) == (0, True, ())
        assert "nothing here uses a Redis" in str(nothing)

    def test_counts_results_nowhere_if_there_are_none(self) -> None:
        assert count(connection_budget(app(backend=None), concurrency=3), "pool child") == 3 * 2

    def test_counts_sentinels_and_sockets_as_servers(self) -> None:
        sentinels = "sentinel://b:26379;sentinel://a:26379"
        where = app(sentinels, "redis+socket:///run/redis.sock", broker_transport_options={"master_name": "m"})
        celery_argsize.install(where, redis_url="redis://figures:9")
        assert set(connection_budget(where).servers) == {"sentinels a:26379,b:26379", "/run/redis.sock", "figures:9"}

    def test_counts_us_where_we_are_installed_and_enabled(self) -> None:
        off = app()
        celery_argsize.install(off, enabled=False)
        assert not [item for item in connection_budget(off).items if "argsize" in item.what]

    def test_limits_a_producers_threads_by_the_pool(self) -> None:
        wide, narrow = (connection_budget(app(broker_pool_limit=limit), threads=12) for limit in (None, 3))
        assert count(wide, "producer") == 12 * 2 + 12 * 2
        assert count(narrow, "producer") == 3 * 2 + 12 * 2
        shared = connection_budget(app(broker_pool_limit=3, result_backend_thread_safe=True), threads=12)
        assert count(shared, "producer") == 3 * 2 + 13

    def test_counts_remote_control_that_tasks_and_producers_send(self) -> None:
        quiet, asking = (connection_budget(app(), concurrency=2, control=control) for control in (False, True))
        assert count(asking, "pool child") - count(quiet, "pool child") == 2 * 2
        assert count(asking, "producer") - count(quiet, "producer") == 2

    @pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent", "eventlet"])
    def test_never_gets_smaller_with_more_of_anything(self, pool: str) -> None:
        def most(**more: Any) -> int:
            conf = {"result_backend_thread_safe": True, "broker_pool_limit": 7, **more.pop("conf", {})}
            sizes = {"concurrency": 3, "workers": 2, "producers": 2, "threads": 2, "pool": pool, **more}
            return connection_budget(app(**conf), **sizes).at_most or 0

        queues = {"conf": {"task_queues": [Queue("celery", Exchange("celery")), Broadcast("all")]}}
        more: list[dict[str, Any]] = [
            {"workers": 3},
            {"producers": 3},
            {"threads": 3},
            {"beat": True},
            {"inspectors": 2},
            {"control": True},
        ]
        more += [queues, {"conf": {"broker_pool_limit": 8}}, {"concurrency": 4}]
        assert all(most(**{"beat": False, **one}) >= most(beat=False) for one in more)
        assert most(**queues) == most() + 2, "one for each of two workers"
        assert most(gossip=False) == most() - 4

    def test_counts_a_solo_worker_as_one_process(self) -> None:
        budget = connection_budget(app(), pool="solo", concurrency=8)
        assert (count(budget, "worker"), count(budget, "pool child")) == (13, 0)
        assert budget.setup.concurrency == 1

    def test_says_that_greenlets_without_a_shared_backend_are_unbounded(self) -> None:
        budget = connection_budget(app(), 200, concurrency=4, pool="gevent")
        assert budget.at_most is None
        assert not budget.fits
        assert "unbounded" in str(budget)
        assert "result_backend_thread_safe" in budget.notes[0]
        assert f"Note: {budget.notes[0]}." in str(budget)
        assert budget.settings is not None
        assert budget.settings["result_backend_thread_safe"]
        assert connection_budget(app(backend=None), 200, concurrency=4, pool="gevent").at_most

    def test_knows_beat_by_its_schedule_or_its_scheduler(self) -> None:
        assert not count(connection_budget(app()), "beat")
        assert count(connection_budget(app(beat_schedule={"a": {"task": "a", "schedule": 1}})), "beat") == 3
        assert count(connection_budget(app(beat_scheduler="django_celery_beat.schedulers:DatabaseScheduler")), "beat")
        assert not count(connection_budget(app(beat_schedule={"a": {"task": "a", "schedule": 1}}), beat=False), "beat")
        assert count(connection_budget(app(beat_enable_remote_control=True), beat=True), "beat") == 3 + 4

    def test_takes_the_concurrency_of_the_app_or_of_the_machine(self) -> None:
        assert connection_budget(app(worker_concurrency=7)).setup.concurrency == 7
        assert connection_budget(app()).setup.concurrency == os.cpu_count()
        assert connection_budget(app(worker_pool="celery.concurrency.thread:TaskPool")).setup.pool == "threads"

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"concurrency": 0}, "concurrency = 0"),
            ({"workers": -1}, "workers = -1"),
            ({"workers": True}, "workers = True"),
            ({"producers": 1.5}, "producers = 1.5"),
            ({"threads": 0}, "threads = 0"),
            ({"max_clients": "30"}, "max_clients = '30'"),
            ({"reserve": -1}, "reserve = -1"),
            ({"inspectors": None}, "inspectors = None"),
            ({"pool": "fibers"}, "pool = 'fibers' is not known; allowed: prefork, solo, threads"),
        ],
    )
    def test_names_a_value_that_cannot_be(self, wrong: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=f"^{words}") as caught:
            connection_budget(app(), **wrong)
        assert "allowed: " in str(caught.value)

    def test_names_a_setting_that_cannot_be(self) -> None:
        for name, value in (
            ("worker_concurrency", "four"),
            ("broker_pool_limit", -1),
            ("redis_max_connections", "20"),  # redis-py takes no text either
            ("broker_transport_options", "secret"),
            ("result_backend_transport_options", "secret"),
        ):
            with pytest.raises(ConfigError, match=f"^{name} .*; allowed: ") as caught:
                connection_budget(app(REDIS, REDIS, **{name: value}))
            assert "secret" not in str(caught.value)
        with pytest.raises(ConfigError, match=r'^broker_transport_options\["max_connections"\] = \'20\' cannot work'):
            connection_budget(app(broker_transport_options={"max_connections": "20"}))

    def test_names_a_url_that_cannot_be_read(self) -> None:
        with pytest.raises(ConfigError, match="^broker_read_url = ") as caught:
            connection_budget(app("redis://:sec#ret/x@h:1/0"))
        assert "sec" not in str(caught.value)

    def test_names_a_url_that_cannot_be_without_its_secrets(self) -> None:
        with pytest.raises(ConfigError, match=r"^result_backend = redis://h/one cannot work: ") as caught:
            connection_budget(app(REDIS, "redis://:secret@h/one"))
        assert "secret" not in str(caught.value)

    def test_is_json_and_text(self) -> None:
        budget = connection_budget(app(), concurrency=4)
        told = json.loads(json.dumps(budget.to_json()))
        assert (told["at_most"], told["fits"], told["concurrency"]) == (budget.at_most, False, 4)
        assert sum(item["most"] for item in told["items"]) == budget.at_most
        assert told["settings"].pop("lines")
        assert told["settings"] == {
            "worker_concurrency": 1,
            "broker_pool_limit": 2,
            "broker_transport_options": {"max_connections": 4},
            "redis_max_connections": 4,
            "result_backend_thread_safe": False,
        }
        without_redis = connection_budget(app("amqp://", None), concurrency=4).to_json()["settings"]
        assert without_redis["redis_max_connections"] is without_redis["broker_pool_limit"] is None
        assert f"127.0.0.1:1: {budget.at_most} at most (30 clients, 1 of them kept free)" in str(budget)


class TestWhatFits:
    def test_lines_to_paste_make_it_fit(self) -> None:
        tries: list[dict[str, Any]] = [
            {"concurrency": 8},
            {"concurrency": 8, "max_clients": 60, "threads": 4},
            {"concurrency": 50, "max_clients": 90, "pool": "threads"},
            {"concurrency": 50, "max_clients": 90, "pool": "gevent", "control": True},
        ]
        for sizes in tries:
            tried = app(broker_transport_options={"visibility_timeout": 99})
            budget = connection_budget(tried, **sizes)
            assert not budget.fits
            assert budget.settings is not None
            exec("\n".join(lines_of(budget.settings)), {"app": tried})  # noqa: S102 - as a person who pastes them
            after = connection_budget(tried, **{**sizes, "concurrency": None})
            assert after.fits, str(after)
            assert after.settings is not None
            assert lines_of(after.settings) == lines_of(budget.settings), "and they stay as they are"
            assert not after.notes
            assert tried.conf.broker_transport_options["visibility_timeout"] == 99

    def test_the_largest_concurrency_fits_and_one_more_does_not(self) -> None:
        budget = connection_budget(app(), 100, concurrency=2)
        assert connection_budget(app(), 100, concurrency=budget.largest_concurrency).fits
        assert not connection_budget(app(), 100, concurrency=budget.largest_concurrency + 1).fits
        assert budget.settings is not None
        assert budget.settings["worker_concurrency"] == 2, "what was asked for, if it fits"

    @pytest.mark.parametrize("more", [{}, {"control": True}], ids=["quiet", "control"])
    @pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
    def test_changes_nothing_that_fits_and_the_concurrency_as_little_as_it_can(
        self, pool: str, more: dict[str, Any]
    ) -> None:
        sizes = {"pool": pool, "threads": 3, **more}
        largest = connection_budget(app(), 90, **sizes).largest_concurrency
        for concurrency in range(1, 25):
            budget = connection_budget(app(), 90, concurrency=concurrency, **sizes)
            found = budget.settings
            assert found is not None
            assert found["worker_concurrency"] == (1 if pool == "solo" else min(concurrency, largest))
            assert found["broker_pool_limit"] == 10 or not budget.fits, "Celery's own, where that fits"
            conf: dict[str, Any] = {
                "result_backend_thread_safe": found.get("result_backend_thread_safe", False),
                "broker_pool_limit": found["broker_pool_limit"],
            }
            assert connection_budget(app(**conf), 90, concurrency=found["worker_concurrency"], **sizes).fits

    def test_is_found_at_once_for_any_number_of_clients(self) -> None:
        began = time.process_time()  # of the CPU: others may keep it busy
        assert connection_budget(app(), 10**9, concurrency=4).largest_concurrency > 10**8
        assert connection_budget(app(), 65_000, pool="threads", concurrency=20_000, threads=900).settings is not None
        assert not connection_budget(app(), 30, 1, 1, producers=10**9).fits
        assert time.process_time() - began < 1  # milliseconds; it was minutes

    def test_thirty_clients_hold_a_worker_with_one_process_and_all_around_it(self) -> None:
        budget = connection_budget(app(), 30, concurrency=4, beat=True)
        assert budget.settings is not None
        assert budget.settings["worker_concurrency"] == 1
        assert budget.settings["broker_pool_limit"] == 2, "with 1, inspect would wait for ever"

    def test_says_what_would_where_nothing_does(self) -> None:
        budget = connection_budget(app(), 30, concurrency=4, workers=2, beat=True)
        assert (budget.settings, budget.largest_concurrency) == (None, 0)
        assert "No settings fit: docs/connections.md says what makes room." in str(budget)

    def test_shares_no_backend_where_celery_cannot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("celery.VERSION", (5, 6, 3))
        budget = connection_budget(app(), 90, pool="threads", concurrency=50)
        assert budget.settings is not None
        assert not budget.settings.get("result_backend_thread_safe")
        assert connection_budget(app(), 90, pool="gevent", concurrency=2).settings is None
        told = connection_budget(app(result_backend_thread_safe=True), 90, threads=2)
        assert "needs Celery 5.7" in told.notes[0]

    def test_notes_ceilings_that_a_process_would_run_into(self) -> None:
        assert not connection_budget(app(), concurrency=50).notes
        unbounded = app(REDIS, None, broker_transport_options={"max_connections": 0})
        assert not connection_budget(unbounded, pool="gevent", concurrency=50).notes
        assert "inspect" in connection_budget(app(broker_pool_limit=1)).notes[0]
        assert "redis_max_connections is 1, but" in connection_budget(app(redis_max_connections=1)).notes[0]
        shared = app(redis_max_connections=20, result_backend_thread_safe=True)
        assert not connection_budget(shared, pool="threads", concurrency=18).notes
        assert "is 20, but 21 may be needed" in connection_budget(shared, pool="threads", concurrency=19).notes[0]
        assert not connection_budget(shared, pool="gevent", concurrency=8).notes
        assert "is 10, but 11 may be needed" in connection_budget(shared, pool="gevent", concurrency=9).notes[0]

    def test_finds_settings_for_hundreds_of_threads_at_once(self) -> None:
        assert connection_budget(app(), 10_000, pool="threads", concurrency=1000).settings is not None


class TestTheEnvironment:
    def test_has_defaults(self) -> None:
        expected = {
            "broker_pool_limit": 8,
            "broker_transport_options": {"max_connections": 20},
            "redis_max_connections": 20,
        }
        assert connection_settings({}) == expected
        assert connection_settings(dict.fromkeys(VARIABLES, "")) == expected, "empty is unset"

    def test_is_read_when_it_is_not_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERY_POOL_LIMIT", "4")
        assert connection_settings()["broker_pool_limit"] == 4

    def test_sets_each_and_caps_all(self) -> None:
        given = {"CELERY_POOL_LIMIT": "4", "CELERY_MAX_CONNECTIONS": "5", "CELERY_RESULT_MAX_CONNECTIONS": "6"}
        found = connection_settings(given)
        assert (found["broker_pool_limit"], found["redis_max_connections"]) == (4, 6)
        assert found["broker_transport_options"] == {"max_connections": 5}
        capped = connection_settings({**dict.fromkeys(given, "50"), "CELERY_POOL_LIMIT_CAP": "30"})
        assert set(_numbers(capped)) == {30}
        assert set(_numbers(connection_settings(dict.fromkeys(given, "50")))) == {20}

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(VARIABLES, st.integers(1, 100).map(str))))
    def test_is_never_too_little_to_work(self, environ: dict[str, str]) -> None:
        assert all(
            2 <= number <= max(2, int(environ.get(VARIABLES[3], 20)))
            for number in _numbers(connection_settings(environ))
        )

    @pytest.mark.parametrize("name", VARIABLES)
    @pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "٣", "1e3", pytest.param("9" * 5000, id="digits")])
    def test_names_a_variable_that_cannot_be(self, name: str, value: str) -> None:
        with pytest.raises(ConfigError, match=f"^{name} = '.*' cannot work; allowed: a whole number, 1 or more$"):
            connection_settings({name: value})

    def test_takes_a_number_for_its_text(self) -> None:
        assert connection_settings({"CELERY_POOL_LIMIT": 5})["broker_pool_limit"] == 5  # type: ignore[dict-item]

    def test_keeps_the_transport_options_it_is_given(self) -> None:
        base = {"visibility_timeout": 99, "max_connections": 3}
        made = app(broker_transport_options=base)
        made.conf.update(connection_settings({}, base=made.conf.broker_transport_options))
        assert made.conf.broker_transport_options == {"visibility_timeout": 99, "max_connections": 20}
        assert base["max_connections"] == 3

    def test_has_no_variable_that_celery_itself_reads(self) -> None:
        taken = set(_variables(celery_command, "CELERY"))
        assert "CELERY_BROKER" in taken, "celery's command line is read from the environment"
        assert not taken & set(VARIABLES)


def _numbers(found: dict[str, Any]) -> list[int]:
    return [
        found["broker_pool_limit"],
        found["broker_transport_options"]["max_connections"],
        found["redis_max_connections"],
    ]


def _variables(command: click.Command, prefix: str) -> list[str]:
    """The variables that click reads the options of *command* and of all below it from."""
    found = [f"{prefix}_{(option.name or '').upper()}" for option in command.params]
    found += [name for option in command.params for name in _own(option)]
    for name, below in getattr(command, "commands", {}).items():
        found += _variables(below, f"{prefix}_{name.upper().replace('-', '_')}")
    return found


def _own(option: click.Parameter) -> list[str]:
    return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())


def test_a_budget_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        connection_budget(app()).max_clients = 3  # type: ignore[misc]
    assert replace(connection_budget(app()), max_clients=99).fits
