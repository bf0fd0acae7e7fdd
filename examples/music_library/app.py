"""A typical Celery app, with the line that measures its arguments.

``scan`` lists a folder and sends ``extract_metadata_batch``, which reads tags and sends ``insert``.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any

from celery import Celery
from celery.utils.serialization import strtobool
from kombu import Queue

import celery_argsize
from music_library.catalog import INSERT_SIZE, chunks, list_files, read_tags

QUEUES = {"scan": "scan", "extract_metadata_batch": "extract", "insert": "insert"}

app = Celery(
    "music_library",
    broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/0"),
)
celery_argsize.install(app)
app.conf.update(
    celery_argsize.connection_settings(),
    # A worker with -Q takes tasks from the queue named there, a worker without it from all of these.
    task_queues=[Queue(name, routing_key=name) for name in QUEUES.values()],
    task_routes={task: {"queue": name} for task, name in QUEUES.items()},
    task_ignore_result=strtobool(os.environ.get("CELERY_TASK_IGNORE_RESULT", "1")),
    task_time_limit=300,
    result_expires=3600,
    broker_connection_retry_on_startup=strtobool(os.environ.get("CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP", "1")),
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=500,
    worker_max_memory_per_child=512_000,  # KiB: 500 MB
    beat_schedule={
        "scan-a-folder": {
            "task": "scan",
            "schedule": float(os.environ.get("SCAN_EVERY", "60")),
            "args": ("/music/Vinyl", 70),
        }
    },
)


@app.task(name="scan")
def scan(folder: str, albums: int, *, batch_size: int = 12) -> int:
    """List *folder*, and send tasks that read the tags of *batch_size* files each. Returns the number of files."""
    paths = list_files(folder, albums)
    for batch in chunks(paths, batch_size):
        extract_metadata_batch.delay(batch)
    return len(paths)


@app.task(name="extract_metadata_batch")
def extract_metadata_batch(paths: list[str]) -> int:
    """Read the tags of the files at *paths*, and send tasks that store them. Returns the number of files."""
    records = [read_tags(path) for path in paths]
    for chunk in chunks(records, INSERT_SIZE):
        insert.delay(records=chunk, library="Bibliothèque")
    return len(records)


@app.task(name="insert")
def insert(records: list[dict[str, Any]], library: str) -> int:
    """Store *records* in a database in memory, which is then dropped. Returns the number of albums."""
    rows = [(library, record["path"], record["artist"], record["album"], record["sort_title"]) for record in records]
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE track (library, path PRIMARY KEY, artist, album, sort_title)")
        database.executemany("INSERT INTO track VALUES (?, ?, ?, ?, ?)", rows)
        (albums,) = database.execute("SELECT count(DISTINCT artist || '/' || album) FROM track").fetchone()
    return int(albums)
