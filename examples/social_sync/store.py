"""The state in Redis: messages, replies, documents, posts and comments, and when each of them is due.

This module does not use Celery. Times are in seconds. Everything expires after ``KEPT`` seconds.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = 24 * 3600
#: From the first message of a sender to the reply. The messages in between get the same reply.
BATCH_SECONDS = float(os.environ.get("BATCH_SECONDS", "2"))
#: A batch or post that was taken but not dropped is due again after this time. No task runs longer: see
#: ``task_time_limit``.
TAKEN_SECONDS = float(os.environ.get("TAKEN_SECONDS", "90"))
#: Most batches or posts that are taken at once.
AT_A_TIME = 100

#: Sorted sets: senders by when their batch is due, posts by when they are due, and posts by when they were published.
BATCHES, POSTS, PUBLISHED = "batches", "posts", "published"

# Any: redis-py's types do not know decode_responses.
client: Any = redis.Redis.from_url(
    os.environ.get("STATE_URL", "redis://localhost:6379/1"), decode_responses=True, max_connections=10
)

# Redis runs a script as one step. Meta sends a message again if it gets no answer; the message is added only once.
_add_message = client.register_script("""
if redis.call('HSETNX', KEYS[1], 'text', ARGV[1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], 'NX', ARGV[4], ARGV[3])
return 1
""")
# Several processes may call this at the same time: each member that is due is given to one of them only. It stays in
# the set and is due again later. The process drops it after it has sent the task. If the process fails or is killed
# before that, another one takes the member again.
_take_due = client.register_script("""
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[3], member) end
return due
""")
# Drops only the messages that were sent. Messages that came in the meantime stay, and are a new batch.
_drop_batch = client.register_script("""
for i = 3, #ARGV do redis.call('LREM', KEYS[2], 1, ARGV[i]) end
if redis.call('EXISTS', KEYS[2]) == 1 then return redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) end
return redis.call('ZREM', KEYS[1], ARGV[1])
""")


def add_message(message_id: str, sender: str, text: str) -> bool:
    """Add a message to the batch of its sender. Returns whether the message is new."""
    entry = _entry({"id": message_id, "text": text})
    keys = [f"message:{message_id}", f"batch:{sender}", BATCHES]
    return bool(_add_message(keys, [text, entry, sender, time.time() + BATCH_SECONDS, KEPT]))


def take_due_batches() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The senders whose batch is due, with their messages. Drop each batch after sending it, or it is due again."""
    for sender in _take(BATCHES):
        yield sender, [json.loads(entry) for entry in client.lrange(f"batch:{sender}", 0, -1)]


def drop_batch(sender: str, messages: list[dict[str, str]]) -> None:
    """Remove these messages of *sender* from its batch."""
    _drop_batch([BATCHES, f"batch:{sender}"], [sender, time.time() + BATCH_SECONDS, *map(_entry, messages)])


def _entry(message: dict[str, str]) -> str:
    return json.dumps(message, ensure_ascii=False)


def _take(name: str) -> list[str]:
    now = time.time()
    return list(_take_due([name], [now, AT_A_TIME, now + TAKEN_SECONDS]))


def add_reply(message_ids: list[str], reply: str) -> list[str]:
    """Add a reply to messages. Returns the ids of those that had no reply before."""
    with client.pipeline() as pipeline:
        for message_id in message_ids:
            pipeline.hsetnx(f"message:{message_id}", "reply", reply)
        return [message_id for message_id, new in zip(message_ids, pipeline.execute(), strict=True) if new]


def add_document(message_id: str, text: str) -> None:
    """Store the text of the document that came with a message."""
    with client.pipeline() as pipeline:
        pipeline.hset(f"message:{message_id}", "document", text).expire(f"message:{message_id}", KEPT).execute()


def add_summary(message_id: str, summary: str) -> None:
    """Store the summary of the document that came with a message."""
    client.hset(f"message:{message_id}", "summary", summary)


def get_document(message_id: str) -> str:
    """The text of the document that came with a message."""
    return str(client.hget(f"message:{message_id}", "document"))


def get_message(message_id: str) -> dict[str, str | None]:
    """The text of a message, the summary of its document, and its reply. Each is ``None`` until there is one."""
    fields = ("text", "summary", "reply")
    return dict(zip(fields, client.hmget(f"message:{message_id}", fields), strict=True))


def add_post(text: str, due: float) -> str:
    """Store a post that is to be published when it is *due*. Returns its id."""
    post_id = uuid4().hex
    with client.pipeline() as pipeline:
        pipeline.hset(f"post:{post_id}", "text", text).zadd(POSTS, {post_id: due}).execute()
    return post_id


def take_due_posts() -> list[str]:
    """The ids of the posts that are due. Drop each post after sending it, or it is due again."""
    return _take(POSTS)


def drop_post(post_id: str) -> None:
    """Remove a post from those that are due."""
    client.zrem(POSTS, post_id)


def add_published(post_id: str) -> bool:
    """Store that a post is published now. Returns ``False`` if it was published before."""
    now = time.time()
    with client.pipeline() as pipeline:
        pipeline.hsetnx(f"post:{post_id}", "published", now).zadd(PUBLISHED, {post_id: now}, nx=True)
        new, *_ = pipeline.expire(f"post:{post_id}", KEPT).execute()
    return bool(new)


def published_posts() -> list[str]:
    """The ids of the posts that were published in the last day."""
    client.zremrangebyscore(PUBLISHED, "-inf", time.time() - KEPT)
    return list(client.zrange(PUBLISHED, 0, -1))


def add_comments(post_id: str, comments: list[str]) -> int:
    """Add comments to a post. Returns how many of them are new."""
    with client.pipeline() as pipeline:
        added, _ = pipeline.sadd(f"comments:{post_id}", *comments).expire(f"comments:{post_id}", KEPT).execute()
    return int(added)


def get_post(post_id: str) -> dict[str, Any]:
    """The text of a post, when it was published (``None`` if it is not), and its comments."""
    text, published = client.hmget(f"post:{post_id}", "text", "published")
    comments = sorted(client.smembers(f"comments:{post_id}"))
    return {"text": text, "published": published and float(published), "comments": comments}
