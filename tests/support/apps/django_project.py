"""An app that is configured only by Django settings. Those for celery_argsize begin with ``CELERY_ARGSIZE_``."""

from __future__ import annotations

import os
from typing import Any

import ready  # noqa: F401 - connects a signal when imported
from celery import Celery
from django.conf import settings

import celery_argsize

settings.configure(
    SECRET_KEY="not a secret: a test's",  # noqa: S106
    CELERY_BROKER_URL=os.environ["TEST_BROKER"],
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP=True,
    CELERY_ARGSIZE_REDIS_URL=os.environ["TEST_BACKEND"],
    CELERY_ARGSIZE_LARGE_TASK_CHARS=10,
    CELERY_ARGSIZE_FLUSH_INTERVAL="0.2",
)

app = Celery("django_project")
celery_argsize.install(app)  # before the configuration, which the order of imports may lead to
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="from_django")
def from_django(*_: Any) -> None:
    """Do nothing, with arguments."""
