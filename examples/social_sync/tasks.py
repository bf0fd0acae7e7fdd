"""The tasks. Beat sends the scans and polls. ``process_…`` and ``publish_post`` are sent when there is work."""

from __future__ import annotations

import os
import time
from random import Random

from celery.utils.log import get_task_logger

from social_sync import store
from social_sync.app import app

logger = get_task_logger(__name__)

#: Seconds that it takes to write a reply.
REPLY_SECONDS = float(os.environ.get("REPLY_SECONDS", "3"))
COMMENTS = ("Lovely!", "Where is this?", "More of these, please.", "¡Qué bonito!")


@app.task(name="scan_redis_batches")
def scan_redis_batches() -> int:
    """Send a task for each batch that is due. Returns the number of batches."""
    batches = list(store.take_due_batches())
    for sender, messages in batches:
        process_message.delay(sender, messages)
        store.drop_batch(sender, messages)
    return len(batches)


@app.task(name="process_message")
def process_message(sender: str, messages: list[dict[str, str]]) -> None:
    """Answer all messages of *sender* with one reply. If this runs again, messages with a reply are left out."""
    messages = [message for message in messages if store.get_message(message["id"])["reply"] is None]
    if not messages:
        return
    reply = write_reply([message["text"] for message in messages])
    if new := store.add_reply([message["id"] for message in messages], reply):
        logger.info("Replied to %s: %s", sender, ", ".join(new))


@app.task(name="process_document")
def process_document(message_id: str) -> None:
    """Summarize the document of a message. It may be long, so the task gets only the id and reads the text itself."""
    words = store.get_document(message_id).split()
    store.add_summary(message_id, f"{len(words)} words, the first: {' '.join(words[:5])}")


@app.task(name="enqueue_due_posts")
def enqueue_due_posts() -> int:
    """Send a task for each post that is due. Returns the number of posts."""
    posts = store.take_due_posts()
    for post_id in posts:
        publish_post.delay(post_id)
        store.drop_post(post_id)
    return len(posts)


@app.task(name="publish_post")
def publish_post(post_id: str) -> None:
    """Publish a post, unless it is published already."""
    if store.add_published(post_id):
        logger.info("Published: %s", post_id)


@app.task(name="poll_post_comments")
def poll_post_comments() -> int:
    """Fetch the comments on all posts. Returns how many of them are new."""
    return sum(store.add_comments(post_id, fetch_comments(post_id)) for post_id in store.published_posts())


def write_reply(texts: list[str]) -> str:
    """Write a reply to *texts*. This stands for a slow call to a language model."""
    time.sleep(REPLY_SECONDS)
    return f"Thank you! You wrote: {' / '.join(texts)}"


def fetch_comments(post_id: str) -> list[str]:
    """The comments on a post. This stands for a call to a social network."""
    return Random(post_id).sample(COMMENTS, 2)
