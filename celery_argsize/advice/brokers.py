"""What brokers take: how each carries the headers of a message, and how much of them.

Pure; a table of defaults, each with its source. Nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from celery import Celery

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: Bytes set aside for a message's other headers. Celery's own take 400 to 700 (measured on RabbitMQ
#: 3.10: an argsrepr of 130,500 passed, one of 130,700 did not); stamps and the caller's come on top.
OTHER_HEADERS: Final = 4 * KIB


@dataclass(frozen=True, slots=True)
class Broker:
    """One kind of broker."""

    name: str
    """kombu's name for the transport."""
    carries: Literal["utf8", "json", "base64"] | None
    """How headers travel: in UTF-8, as JSON in ASCII, or that in base64; ``None`` if not known."""
    headers_max: int | None = None
    """Bytes that all headers of a message may take; ``None`` if not limited."""
    message_max: int | None = None
    """Bytes that a message may take; ``None`` if not known or not limited."""
    source: str = ""
    """Where the limits are from."""

    @property
    def body_max(self) -> int | None:
        """Bytes of arguments that fit a message; ``None`` if not known or not limited."""
        return None if self.message_max is None else int((self.message_max - OTHER_HEADERS) / self.body_bytes(1))

    def body_bytes(self, size: float) -> float:
        """Bytes that a body takes: kombu's virtual transports carry it in base64."""
        return size * {"utf8": 1.0, "json": 4 / 3, "base64": 16 / 9}[self.carries or "utf8"]


#: The defaults in the brokers' own documentation. RabbitMQ: 8 bytes go around a frame, and AMQP 0-9-1,
#: 4.2.6, wants all headers in one; before version 4 a message took 128 MiB. SQS: since August 2025.
_TABLE: Final = (
    Broker("amqp", "utf8", 131_064, 16 * MIB, "RabbitMQ's defaults: frame_max 131,072, max_message_size 16 MiB"),
    Broker("redis", "json", None, 512 * MIB, "Redis: proto-max-bulk-len 512 MB"),
    Broker("sqs", "base64", None, MIB, "Amazon SQS: 1 MiB a message"),
    Broker("azureservicebus", "json", None, 256 * KIB, "Azure Service Bus, Standard tier: 256 KB a message"),
    Broker("azurestoragequeues", "json", None, 64 * KIB, "Azure Queue Storage: 64 KiB a message"),
    Broker("gcpubsub", "json", None, 10_000_000, "Google Pub/Sub: 10 MB a message"),
    Broker("confluentkafka", "json", None, 1_000_000, "Kafka: message.max.bytes 1,000,000"),
    Broker("mongodb", "json", None, 16 * MIB, "MongoDB: 16 MiB a document"),
    Broker("filesystem", "json", source="files have no limit that matters here"),
    Broker("memory", "utf8", source="memory has no limit that matters here"),
)
_BROKERS: Final = {broker.name: broker for broker in _TABLE}
#: Other names of transports: kombu.transport.TRANSPORT_ALIASES.
_ALIASES: Final = {
    **dict.fromkeys(("amqps", "pyamqp", "librabbitmq"), "amqp"),
    **dict.fromkeys(("rediss", "sentinel"), "redis"),
    "kafka": "confluentkafka",
}


def broker_of(name: str | None) -> Broker:
    """The broker of a kombu transport's *name* or of a URL, in the table or not."""
    scheme = (name or "unknown").partition("://")[0].partition("+")[0].strip().lower()
    return _BROKERS.get(_ALIASES.get(scheme, scheme)) or Broker(scheme, None)


def broker_name(app: Celery) -> str:
    """The transport that *app* sends by, from its configuration alone."""
    url: Any = app.conf.broker_write_url or app.conf.broker_url or "amqp://"  # Celery's default
    first = url if isinstance(url, str) else next(iter(url))
    return first.partition("://")[0]
