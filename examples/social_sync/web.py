"""The FastAPI app: a webhook that stores messages and answers at once, and pages that show messages and posts."""

from __future__ import annotations

import hmac
import os
import time
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from social_sync import store
from social_sync.tasks import process_document

VERIFY_TOKEN = os.environ.get("VERIFY_TOKEN", "secret")

api = FastAPI(title="social_sync")


class Message(BaseModel):
    """A message, and the text of its document, if it has one."""

    id: str
    sender: str
    text: str
    document: str | None = None


class Post(BaseModel):
    """A post, and the seconds until it is due."""

    text: str
    due_in: float = 0


@api.get("/webhook")
def verify(
    token: Annotated[str, Query(alias="hub.verify_token")], challenge: Annotated[str, Query(alias="hub.challenge")]
) -> PlainTextResponse:
    """Meta's check that this webhook is ours: return the challenge if the token is right."""
    if not hmac.compare_digest(token.encode(), VERIFY_TOKEN.encode()):
        raise HTTPException(403, "wrong hub.verify_token")
    return PlainTextResponse(challenge)


@api.post("/webhook")
def receive(message: Message) -> dict[str, bool]:
    """Store a message, and answer at once. The sender waits only a few seconds, and a reply takes longer."""
    if message.document is not None:
        # First the document, then the message: if this fails, the sender sends everything again.
        store.add_document(message.id, message.document)
        process_document.delay(message.id)
    return {"new": store.add_message(message.id, message.sender, message.text)}


@api.get("/messages/{message_id}")
def message(message_id: str) -> dict[str, Any]:
    """A message, with its reply once there is one."""
    return _or_not_found(store.get_message(message_id))


@api.post("/posts", status_code=201)
def add_post(post: Post) -> dict[str, str]:
    """Add a post that will be published when it is due."""
    return {"id": store.add_post(post.text, time.time() + post.due_in)}


@api.get("/posts/{post_id}")
def post(post_id: str) -> dict[str, Any]:
    """A post, when it was published, and its comments."""
    return _or_not_found(store.get_post(post_id))


def _or_not_found(item: dict[str, Any]) -> dict[str, Any]:
    if item["text"] is None:
        raise HTTPException(404)
    return item
