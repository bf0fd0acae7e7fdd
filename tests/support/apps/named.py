"""An app with tasks of the names that TEST_NAMES gives, a JSON list: for names that nobody should give."""

from __future__ import annotations

import json
import os

import ready  # noqa: F401 - for its effect
from celery import Celery

import celery_argsize

app = Celery("named", broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_BACKEND"))
app.conf.broker_connection_retry_on_startup = True
celery_argsize.install(app, flush_interval=0.1)


def body(*_: object) -> None:
    """Do nothing."""


for name in json.loads(os.environ["TEST_NAMES"]):
    app.task(name=name)(body)
