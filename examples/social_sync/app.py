"""The Celery app: its queues, what Beat sends and how often, and the line that measures its arguments."""

from __future__ import annotations

import os

from celery import Celery
from celery.utils.serialization import strtobool
from kombu import Queue

import celery_argsize

QUEUES = {
    "process_message": "ingest",
    "process_document": "ingest",
    "scan_redis_batches": "ingest",
    "publish_post": "scheduler",
    "enqueue_due_posts": "scheduler",
    "poll_post_comments": "comments",
}

app = Celery(
    "social_sync",
    broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/0"),
    include=["social_sync.tasks"],
)
celery_argsize.install(app)


def _every(variable: str, default: float) -> float:
    """Seconds between two runs of a periodic task, from the environment *variable*."""
    return float(os.environ.get(variable, default))


app.conf.update(
    celery_argsize.connection_settings(),
    # A worker with -Q takes tasks from the queue named there, a worker without it from all of these.
    task_queues=[Queue(name, routing_key=name) for name in sorted(set(QUEUES.values()))],
    task_routes={task: {"queue": name} for task, name in QUEUES.items()},
    task_ignore_result=strtobool(os.environ.get("CELERY_TASK_IGNORE_RESULT", "1")),
    # A task whose process was killed runs again. All tasks here may safely run twice.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_time_limit=60,
    result_expires=3600,
    broker_connection_retry_on_startup=strtobool(os.environ.get("CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP", "1")),
    worker_prefetch_multiplier=1,
    beat_schedule={
        "scan-batches": {
            "task": "scan_redis_batches",
            "schedule": _every("SCAN_EVERY", 0.5),
            # While the queue is busy, scans would pile up in it. A scan that waited longer than this is not needed,
            # because the next one is already in the queue.
            "options": {"expires": 0.4},
        },
        "enqueue-posts": {"task": "enqueue_due_posts", "schedule": _every("POSTS_EVERY", 60)},
        "poll-comments": {"task": "poll_post_comments", "schedule": _every("COMMENTS_EVERY", 300)},
    },
)
