#!/usr/bin/env python3
"""Shows how big task arguments are, without an app: ``python scripts/check_celery_metrics.py [--redis-url URL]``.

The same report as ``celery -A proj argsize report``, and the same exit codes: 0 report, 1 nothing collected yet,
2 bad usage or setting, 3 Redis unreachable.
"""

from __future__ import annotations

import argparse
import os
import sys

from celery_argsize.commands.report import show_report
from celery_argsize.redis_url import is_redis_url
from celery_argsize.settings import DEFAULT_REDIS_URL

#: Where Celery itself, and then the usual hosts, leave the URL. The order is that of an app: results, then messages.
URL_VARIABLES = ("CELERY_ARGSIZE_REDIS_URL", "CELERY_RESULT_BACKEND", "CELERY_BROKER_URL", "REDIS_URL")


def find_redis_url() -> str:
    """The Redis to ask when nobody says which."""
    found = [os.environ.get(name, "") for name in URL_VARIABLES]
    return next(filter(is_redis_url, found), DEFAULT_REDIS_URL)


def main() -> int:
    """Parse the command line, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description="Show how big the arguments of Celery tasks are.")
    parser.add_argument(
        "--redis-url",
        default=find_redis_url(),
        help=f"the Redis that the workers write to (else the environment: {', '.join(URL_VARIABLES)}; "
        f"else {DEFAULT_REDIS_URL})",
    )
    parser.add_argument("--key-prefix", help="prefix of the keys in Redis (default: celery-argsize)")
    parser.add_argument("--app-name", help="only the app of this name, where several share a Redis")
    parser.add_argument(
        "--broker",
        default=os.environ.get("CELERY_BROKER_URL"),
        help="what messages go through, such as amqp or sqs: its limits bear on the advice (else CELERY_BROKER_URL)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for other programs")
    options = parser.parse_args()
    return show_report(
        None,
        as_json=options.json,
        broker=options.broker,
        redis_url=options.redis_url,
        key_prefix=options.key_prefix,
        app_name=options.app_name,
    )


if __name__ == "__main__":
    sys.exit(main())
