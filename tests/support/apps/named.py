"""An app whose task names are those in TEST_NAMES, a JSON list. It is for hostile names."""

from __future__ import annotations

import json
import os

import ready  # noqa: F401 - connects a signal when imported
from celery import Celery

import celery_argsize

app = Celery("named", broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_BACKEND"))
app.conf.broker_connection_retry_on_startup = True
celery_argsize.install(app, flush_interval=0.1)


def body(*_: object) -> None:
    """Do nothing."""


for name in json.loads(os.environ["TEST_NAMES"]):
    app.task(name=name)(body)
