"""How each broker carries the headers of a message, and how large a message may be.

Pure: a table of defaults, each with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from celery import Celery

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: Bytes kept free for headers other than reprs. Celery's take 400 to 700
#: (RabbitMQ 3.10 passed an argsrepr of 130,500 and refused 130,700); stamps
#: and the caller's add to it.
OTHER_HEADERS: Final = 4 * KIB


@dataclass(frozen=True, slots=True)
class Broker:
    """One kind of broker."""

    name: str
    """kombu's name for the transport."""
    carries: Literal["utf8", "json", "base64"] | None
    """How headers travel: in UTF-8, as ASCII JSON, or as such JSON in base64;
    ``None`` if not known."""
    message_max: int | None = None
    """Bytes that a message may take; ``None``: no known limit."""
    source: str = ""
    """Where the limits are documented."""
    headers_max: int | None = None
    """Bytes that all headers of a message may take; ``None``: no limit."""

    @property
    def body_max(self) -> int | None:
        """Bytes of arguments that fit a message; ``None``: no known limit."""
        return None if self.message_max is None else int((self.message_max - OTHER_HEADERS) / self.body_bytes(1))

    def body_bytes(self, size: float) -> float:
        """Bytes of arguments in the broker: kombu's virtual transports use base64."""
        return size * {"utf8": 1.0, "json": 4 / 3, "base64": 16 / 9}[self.carries or "utf8"]


#: From the brokers' documentation. RabbitMQ: a frame of 131,072 bytes, less 8,
#: holds all headers (AMQP 0-9-1, 4.2.6); before version 4 a message took up to
#: 128 MiB. SQS: since August 2025.
_TABLE: Final = (
    Broker("amqp", "utf8", 16 * MIB, "RabbitMQ's defaults: frame_max 131,072, max_message_size 16 MiB", 131_064),
    Broker("redis", "json", 512 * MIB, "Redis: proto-max-bulk-len 512 MB"),
    Broker("sqs", "base64", MIB, "Amazon SQS: 1 MiB a message"),
    Broker("azureservicebus", "json", 256 * KIB, "Azure Service Bus, Standard tier: 256 KB a message"),
    Broker("azurestoragequeues", "json", 64 * KIB, "Azure Queue Storage: 64 KiB a message"),
    Broker("gcpubsub", "json", 10_000_000, "Google Pub/Sub: 10 MB a message"),
    Broker("confluentkafka", "json", 1_000_000, "Kafka: message.max.bytes 1,000,000"),
    Broker("mongodb", "json", 16 * MIB, "MongoDB: 16 MiB a document"),
    Broker("zookeeper", "json", 0xFFFFF, "ZooKeeper: jute.maxbuffer 1,048,575"),
    Broker("etcd", "json", 3 * MIB // 2, "etcd: 1.5 MiB a request"),
    Broker("consul", "json", 512 * KIB, "Consul: kv_max_value_size 512 KB"),
    Broker("filesystem", "json", source="files have no limit that matters here"),
    Broker("memory", "utf8", source="memory has no limit that matters here"),
)
_BROKERS: Final = {broker.name: broker for broker in _TABLE}
#: kombu.transport.TRANSPORT_ALIASES.
_ALIASES: Final = {
    **dict.fromkeys(("amqps", "pyamqp", "librabbitmq"), "amqp"),
    **dict.fromkeys(("rediss", "sentinel"), "redis"),
    "kafka": "confluentkafka",
}


def broker_of(name: str | None) -> Broker:
    """The broker for a URL or a kombu transport's name; without limits if not known."""
    scheme = (name or "unknown").partition("://")[0].partition("+")[0].strip().lower()
    return _BROKERS.get(_ALIASES.get(scheme, scheme)) or Broker(scheme, None)


def broker_name(app: Celery) -> str:
    """The URL scheme of the broker that *app* sends to."""
    url: Any = app.conf.broker_write_url or app.conf.broker_url or "amqp://"  # Celery's default
    first = url if isinstance(url, str) else next(iter(url))
    return first.partition("://")[0]
