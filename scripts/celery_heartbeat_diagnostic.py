#!/usr/bin/env python3
"""Says what is wrong: ``python scripts/celery_heartbeat_diagnostic.py -A proj [--redis-url URL] [--json]``.

It is ``celery -A proj argsize doctor`` by another name: the same options, report and exit codes. Without an app it
looks at a Redis and at this machine; which Redis, it finds as ``check_celery_metrics.py`` does.
"""

from __future__ import annotations

import argparse
import os

from celery.bin.celery import celery
from check_celery_metrics import find_redis_url

__all__ = ["main"]


def main() -> None:
    """Hand the command line over to celery, and end with its exit code."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-A", "--app", default=os.environ.get("APP"))
    given, words = parser.parse_known_args()
    before = ["-A", given.app] if given.app else []
    if not given.app and not any(word.startswith("--redis-url") for word in words):
        words += ["--redis-url", find_redis_url()]
    celery.main([*before, "argsize", "doctor", *words], prog_name="celery")


if __name__ == "__main__":
    main()
