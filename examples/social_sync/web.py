"""What the world calls: a webhook that stores and answers at once, and pages that show what became of it."""

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
    """A message, and the text of the document that came with it, if one did."""

    id: str
    sender: str
    text: str
    document: str | None = None


class Post(BaseModel):
    """A post, and in how many seconds it is due."""

    text: str
    due_in: float = 0


@api.get("/webhook")
def verify(
    token: Annotated[str, Query(alias="hub.verify_token")], challenge: Annotated[str, Query(alias="hub.challenge")]
) -> PlainTextResponse:
    """Show Meta that this webhook is ours: give the challenge back to who knows the token."""
    if not hmac.compare_digest(token.encode(), VERIFY_TOKEN.encode()):
        raise HTTPException(403, "wrong hub.verify_token")
    return PlainTextResponse(challenge)


@api.post("/webhook")
def receive(message: Message) -> dict[str, bool]:
    """Store a message and answer at once: whoever sends it gives us a few seconds, and a reply takes longer."""
    if message.document is not None:
        # Before the message is known: if this fails, all of it is sent again.
        store.add_document(message.id, message.document)
        process_document.delay(message.id)
    return {"new": store.add_message(message.id, message.sender, message.text)}


@api.get("/messages/{message_id}")
def message(message_id: str) -> dict[str, Any]:
    """Show a message, with its reply once there is one."""
    return _found(store.get_message(message_id))


@api.post("/posts", status_code=201)
def add_post(post: Post) -> dict[str, str]:
    """Have a post published when it is due."""
    return {"id": store.add_post(post.text, time.time() + post.due_in)}


@api.get("/posts/{post_id}")
def post(post_id: str) -> dict[str, Any]:
    """Show a post, when it was published, and its comments."""
    return _found(store.get_post(post_id))


def _found(thing: dict[str, Any]) -> dict[str, Any]:
    if thing["text"] is None:
        raise HTTPException(404)
    return thing
