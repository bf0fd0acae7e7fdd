"""Tests of examples/django_render as a user runs it: a web process, a worker and Beat, with Redis behind TLS."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import redis
import trustme
from support.examples import FOLDER, Example, shared_example
from support.redis_kinds import Authority, TlsServer, started
from support.servers import BIN, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Checks of the doctor whose verdict depends on the machine: its CPUs and memory, its load, what else runs there.
OF_THE_MACHINE = re.compile(r"host\.|redis\.(latency|memory)|\w+\.(concurrency|heartbeats|single)|workers\.memory")
REPORT = ("celery", "-A", "config", "argsize", "report")


@pytest.fixture(scope="module", autouse=True)
def _redis_with_tls(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tls")
    with started(TlsServer(folder, Authority(folder))):
        pass  # if no redis-server speaks TLS, this skips the tests, or fails in CI


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Example]]:
    work = tmp_path_factory.mktemp("django_render")
    settings = {"REDIS_CA_FILE": str(work / "ca.pem"), "PAYOUTS_EVERY": "1", "CELERY_POOL_LIMIT": "3"}
    with shared_example("django_render", work, **settings) as running:
        yield running


@pytest.fixture
def example(shared: Callable[[], Example]) -> Example:
    return shared()


@pytest.fixture
def other_ca(tmp_path: Path) -> str:
    file = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return str(file)


def run_with(example: Example, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the environment of the example, changed by *env*."""
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=example.folder,
        env={**example.shell, **example.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def settings_of(example: Example, **env: str) -> Any:
    """Celery's settings in the environment of the example, changed by *env*."""
    names = ("broker_url", "broker_use_ssl", "broker_pool_limit", "result_backend", "redis_backend_use_ssl", "timezone")
    code = f"import json; from config import celery_app as a; print(json.dumps([getattr(a.conf, n) for n in {names}]))"
    done = run_with(example, "python", "-c", code, **env)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, json.loads(done.stdout), strict=True))


def test_a_view_answers_at_once_and_the_worker_pays(example: Example) -> None:
    rides = [{"ride": number, "fare": 900} for number in range(200)]
    status, body = example.post("/payouts/", {"driver": "ada", "rides": rides})
    assert status == 202
    path = f"/payouts/{body['task']}/"
    wait_until(lambda: example.get(path)[1]["state"] == "SUCCESS", what="the payout")
    assert example.get(path) == (200, {"state": "SUCCESS", "paid": {"driver": "ada", "cents": 180_000}})


def test_a_view_says_what_it_wants(example: Example) -> None:
    for wrong in ({"driver": "ada"}, ["ada"], {"driver": "ada", "rides": 1}):
        assert example.post("/payouts/", wrong) == (400, {"error": "send JSON: a driver, and a list of rides"})
    assert example.get("/payouts/")[0] == 405


def test_beat_has_everyone_paid(example: Example) -> None:
    wait_until(lambda: example.get("/payouts/latest/")[1]["drivers"] == 3, what="Beat's task")
    assert "Sending due task daily-driver-payouts" in example.log


def test_report_shows_both_tasks(example: Example) -> None:
    names = {"payments.tasks.pay_driver", "payments.tasks.process_daily_payouts"}
    wait_until(lambda: set(json.loads(example.run(*REPORT, "--json"))["tasks"]) == names, what="the figures")


def test_all_goes_through_tls(example: Example) -> None:
    port = example.env["REDIS_PORT"]
    assert example.env["REDIS_URL"] == f"redis://localhost:{port}/0", "as Redis Cloud shows it"
    for name in ("worker.1", "beat.1"):
        lines = "\n".join(line for line in example.log.splitlines() if f" {name} " in line)
        assert re.search(rf"rediss://\S*localhost:{port}/0", lines)
        assert "insecure" not in lines
    with redis.Redis("localhost", int(port), ssl=True, ssl_ca_certs=example.env["REDIS_CA_FILE"]) as client:
        ports = client.config_get("*port")
    assert {name: value for name, value in ports.items() if value != "0"} == {"tls-port": port}


def test_another_ca_is_refused_by_report_and_by_the_worker(example: Example, other_ca: str) -> None:
    done = run_with(example, *REPORT, REDIS_CA_FILE=other_ca)
    assert done.returncode == 3
    assert "its certificate is not signed by a CA known here" in done.stderr
    code = "from config import celery_app as a; a.connection().ensure_connection(max_retries=1, interval_start=0)"
    done = run_with(example, "python", "-c", code, REDIS_CA_FILE=other_ca)
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
    done = run_with(example, "python", "-c", "from config import celery_app as a; a.backend.get('x')", REDIS_CA_FILE="")
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr, "the system's authorities do not know ours"


def test_urls_of_the_broker_and_of_results_follow_redis_url_where_they_are_empty(example: Example) -> None:
    found = settings_of(example, CELERY_BROKER_URL="", CELERY_RESULT_BACKEND="")
    secure = example.env["REDIS_URL"].replace("redis:", "rediss:")
    assert found["broker_url"] == found["result_backend"] == secure
    assert found["broker_use_ssl"] == found["redis_backend_use_ssl"]
    assert found["broker_use_ssl"]["ssl_cert_reqs"] == "required"
    assert found["timezone"] == "UTC"


@pytest.mark.parametrize(
    ("url", "tls"),
    [("rediss://other.example:6380/0", True), ("redis://other.example:6380/0", False)],
)
def test_certificates_are_checked_by_the_url_of_each_use(example: Example, url: str, tls: bool) -> None:  # noqa: FBT001
    without, checked = (None, "required") if tls else ("required", None)
    ours = example.env["REDIS_URL"].replace("redis:", "redis:" if tls else "rediss:")
    found = settings_of(example, REQUIRE_REDIS_SSL="", REDIS_URL=ours, CELERY_BROKER_URL=url)
    assert found["broker_url"] == url
    assert (found["broker_use_ssl"] or {}).get("ssl_cert_reqs") == checked
    assert (found["redis_backend_use_ssl"] or {}).get("ssl_cert_reqs") == without
    found = settings_of(example, REQUIRE_REDIS_SSL="", REDIS_URL=ours, CELERY_RESULT_BACKEND=url)
    assert found["result_backend"] == url
    assert (found["broker_use_ssl"] or {}).get("ssl_cert_reqs") == without
    assert (found["redis_backend_use_ssl"] or {}).get("ssl_cert_reqs") == checked


def test_the_requirement_holds_for_each_url(example: Example) -> None:
    plain = example.env["REDIS_URL"]
    code = "from config import celery_app as a; a.connection().ensure_connection(max_retries=1); a.backend.get('x')"
    done = run_with(example, "python", "-c", code, CELERY_BROKER_URL=plain, CELERY_RESULT_BACKEND=plain)
    assert done.returncode == 0, done.stderr


def test_without_the_requirement_a_redis_without_tls_is_used_as_it_is(example: Example) -> None:
    found = settings_of(example, REQUIRE_REDIS_SSL="")
    assert found["broker_url"] == found["result_backend"] == example.env["REDIS_URL"]
    assert not found["broker_use_ssl"]
    assert not found["redis_backend_use_ssl"]


def test_pool_limit_of_the_environment_is_that_of_the_live_worker(example: Example) -> None:
    (conf,) = example.inspect("config", "conf").values()
    assert conf["broker_pool_limit"] == 3
    assert settings_of(example, CELERY_POOL_LIMIT="30", CELERY_POOL_LIMIT_CAP="5")["broker_pool_limit"] == 5


def test_a_missing_redis_url_is_named(example: Example) -> None:
    done = run_with(example, *REPORT, REDIS_URL="")
    assert done.returncode != 0
    assert "set REDIS_URL in the environment of every service" in done.stderr


@pytest.mark.slow
def test_doctor_finds_no_fault_but_that_the_local_redis_keeps_nothing(example: Example) -> None:
    done = run_with(example, "celery", "-A", "config", "argsize", "doctor", "--json")
    found = {(check["id"], check["verdict"]) for check in json.loads(done.stdout)["checks"]}
    assert {name for name, _ in found} > {"redis.tls", "workers.answering", "monitor.measuring", "beat.sending"}
    not_well = {(name, verdict) for name, verdict in found if verdict != "ok" and not OF_THE_MACHINE.match(name)}
    assert not_well == {("redis.persistence", "warn")}


def test_render_starts_what_the_procfile_starts(example: Example) -> None:
    blueprint = (FOLDER / "django_render" / "render.yaml").read_text(encoding="utf-8")
    _, worker, beat = re.findall(r"startCommand: (.+)", blueprint)
    assert example.procfile["worker"].endswith(f"exec {worker}")
    assert example.procfile["beat"].endswith(f"exec {beat}")


def test_sigterm_leaves_no_process_and_loses_no_figures(example: Example) -> None:
    wait_until(lambda: example.get("/payouts/latest/")[1]["drivers"] == 3, what="Beat's task")
    assert example.stop(signal.SIGTERM) == 143
    assert "redis.1 stopped (rc=0)" in example.log
    assert "Cannot connect" not in example.log, "Redis was the last to go"
