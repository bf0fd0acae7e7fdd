#!/usr/bin/env python3
"""Finds problems: ``python scripts/celery_heartbeat_diagnostic.py -A proj [--redis-url URL] [--json]``.

This runs ``celery -A proj argsize doctor``, with the options, report and exit codes of that command. Without an app it
checks a Redis and this machine. It finds the Redis in the way that ``check_celery_metrics.py`` does.
"""

from __future__ import annotations

import argparse
import os

from celery.bin.celery import celery
from check_celery_metrics import find_redis_url

__all__ = ["main"]


def main() -> None:
    """Pass the command line on to celery, and end with its exit code."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-A", "--app", default=os.environ.get("APP"))
    parsed, options = parser.parse_known_args()
    app = ["-A", parsed.app] if parsed.app else []
    if not parsed.app and not any(option.startswith("--redis-url") for option in options):
        options += ["--redis-url", find_redis_url()]
    celery.main([*app, "argsize", "doctor", *options], prog_name="celery")


if __name__ == "__main__":
    main()
