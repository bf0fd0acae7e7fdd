#!/usr/bin/env python3
"""Shows how large task arguments are, without an app: ``python scripts/check_celery_metrics.py [--redis-url URL]``.

It prints the report of ``celery -A proj argsize report`` and ends with its exit codes: 0 for a report, 1 if nothing has
been measured yet, 2 for wrong usage or a setting that cannot work, 3 if Redis cannot be read.
"""

from __future__ import annotations

import argparse
import os
import sys

from celery_argsize.commands.common import Source, fail
from celery_argsize.commands.report import show_report
from celery_argsize.errors import ArgsizeError
from celery_argsize.redis_url import is_redis_url
from celery_argsize.settings import DEFAULT_REDIS_URL

#: Environment variables that may hold the URL, in the order in which they are tried: our own setting, Celery's result
#: backend and broker, and the variable that many hosting providers set.
URL_VARIABLES = ("CELERY_ARGSIZE_REDIS_URL", "CELERY_RESULT_BACKEND", "CELERY_BROKER_URL", "REDIS_URL")


def find_redis_url() -> str:
    """The URL of the Redis to read if no option says which: from the environment, else on this machine."""
    urls = [os.environ.get(name, "") for name in URL_VARIABLES]
    return next(filter(is_redis_url, urls), DEFAULT_REDIS_URL)


def main() -> int:
    """Parse the command line, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description="Show how large the arguments of Celery tasks are.")
    parser.add_argument(
        "--redis-url",
        default=find_redis_url(),
        help=f"the Redis that the workers write to (else the environment: {', '.join(URL_VARIABLES)}; "
        f"else {DEFAULT_REDIS_URL})",
    )
    parser.add_argument("--key-prefix", help="prefix of the keys in Redis (default: celery-argsize)")
    parser.add_argument("--app-name", help="only the app of this name, if several apps share a Redis")
    parser.add_argument(
        "--broker",
        default=os.environ.get("CELERY_BROKER_URL"),
        help="what messages go through, such as amqp or sqs; the advice depends on its limits (else CELERY_BROKER_URL)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    options = parser.parse_args()
    where = {name: getattr(options, name) for name in ("redis_url", "key_prefix", "app_name")}
    try:
        return show_report(Source(None, where), options.broker, as_json=options.json)
    except ArgsizeError as exc:
        return fail(exc)


if __name__ == "__main__":
    sys.exit(main())
