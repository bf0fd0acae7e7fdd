"""A real Prometheus for tests: started here, stopped here, and asked over its HTTP API."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from support.servers import free_port, missing, stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}}
rule_files: {rules}
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: [{target!r}]}}]
"""


def binary(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} (Debian's package prometheus)")
    return str(path)


class Sample(NamedTuple):
    """A series' labels, and its value."""

    labels: dict[str, str]
    value: float


class PrometheusServer:
    """A Prometheus of the test's own. It scrapes *target* (host:port) every second and keeps exemplars."""

    def __init__(self, folder: Path, target: str, *, job: str = "celery-argsize", rules: Iterable[Path] = ()) -> None:
        self.port = 0
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "prometheus.yml").write_text(
            CONFIG.format(job=job, target=target, rules=json.dumps([str(file) for file in rules]))
        )

    def start(self) -> PrometheusServer:
        """Start it and wait until it answers. If its port was taken meanwhile, try another."""
        for _ in range(3):
            self.port = free_port()
            self.process = self._started()
            if wait_until(self._ready, what="prometheus") == "ready":
                return self
        pytest.fail(f"prometheus ended:\n{(self.folder / 'prometheus.log').read_text()}")

    def _started(self) -> subprocess.Popen[bytes]:
        command = [
            binary("prometheus"),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=exemplar-storage",
        ]
        with (self.folder / "prometheus.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def _ready(self) -> str | None:
        if self.process is None or self.process.poll() is not None:
            return "ended"
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return "ready"
        except OSError:  # not there yet; or there, and not ready
            return None

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    def ask(self, path: str, **parameters: Any) -> Any:
        """The ``data`` of the API's answer at *path*. An error fails the test with Prometheus's own words."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except URLError as exc:
            pytest.fail(f"{path} {parameters}: {exc.read().decode() if hasattr(exc, 'read') else exc}")

    def query(self, expression: str) -> list[Sample]:
        """The series that *expression* gives now."""
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str) -> float | None:
        """The one value that *expression* gives now, or ``None``."""
        samples = self.query(expression)
        assert len(samples) <= 1, f"{expression} gives {samples}"
        return samples[0].value if samples else None

    def exemplars(self, expression: str, seconds: float = 600) -> list[dict[str, Any]]:
        """Exemplars of the last *seconds* in *expression*: each has ``labels``, ``value``, and its series' labels."""
        now = time.time()
        answer = self.ask("query_exemplars", query=expression, start=now - seconds, end=now + 5)
        return [{**each, "series": series["seriesLabels"]} for series in answer for each in series["exemplars"]]
