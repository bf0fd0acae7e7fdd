"""The tasks. ``process_…`` and ``publish_post`` are sent when there is something to do, the others by Beat."""

from __future__ import annotations

import os
import time
from random import Random

from celery.utils.log import get_task_logger

from social_sync import store
from social_sync.app import app

logger = get_task_logger(__name__)

#: Seconds that writing a reply takes.
REPLY_SECONDS = float(os.environ.get("REPLY_SECONDS", "3"))
COMMENTS = ("Lovely!", "Where is this?", "More of these, please.", "¡Qué bonito!")


@app.task(name="scan_redis_batches")
def scan_redis_batches() -> int:
    """Have the batches answered that are due; how many there are."""
    batches = list(store.take_due_batches())
    for sender, messages in batches:
        process_message.delay(sender, messages)
        store.drop_batch(sender, messages)
    return len(batches)


@app.task(name="process_message")
def process_message(sender: str, messages: list[dict[str, str]]) -> None:
    """Answer all that *sender* wrote with one reply, but for what has been answered: this may run again."""
    messages = [message for message in messages if store.get_message(message["id"])["reply"] is None]
    if not messages:
        return
    reply = write_reply([message["text"] for message in messages])
    if new := store.add_reply([message["id"] for message in messages], reply):
        logger.info("Replied to %s: %s", sender, ", ".join(new))


@app.task(name="process_document")
def process_document(message_id: str) -> None:
    """Summarize the document that came with a message. It may be long: the task is sent the id, and reads it here."""
    words = store.get_document(message_id).split()
    store.add_summary(message_id, f"{len(words)} words, the first: {' '.join(words[:5])}")


@app.task(name="enqueue_due_posts")
def enqueue_due_posts() -> int:
    """Have the posts published that are due; how many there are."""
    posts = store.take_due_posts()
    for post_id in posts:
        publish_post.delay(post_id)
        store.drop_post(post_id)
    return len(posts)


@app.task(name="publish_post")
def publish_post(post_id: str) -> None:
    """Publish a post."""
    if store.add_published(post_id):
        logger.info("Published: %s", post_id)


@app.task(name="poll_post_comments")
def poll_post_comments() -> int:
    """Fetch the comments on all posts; how many are new."""
    return sum(store.add_comments(post_id, fetch_comments(post_id)) for post_id in store.published_posts())


def write_reply(texts: list[str]) -> str:
    """What an AI might say, after as long as one might take."""
    time.sleep(REPLY_SECONDS)
    return f"Thank you! You wrote: {' / '.join(texts)}"


def fetch_comments(post_id: str) -> list[str]:
    """What a social network might list."""
    return Random(post_id).sample(COMMENTS, 2)
