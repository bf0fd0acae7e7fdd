"""What brokers take: how each carries a message's headers, and how much of them.

Pure, and a table: limits are the defaults, from the source named beside each. Where a limit is not known, it says so;
nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from celery import Celery

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: Bytes set aside for a message's other headers and properties. Celery's own take 400 to 700 (measured on RabbitMQ
#: 3.10: an argsrepr of 130,500 passed, one of 130,700 did not); stamps and headers of the caller's come on top.
OTHER_HEADERS: Final = 4 * KIB


@dataclass(frozen=True, slots=True)
class Broker:
    """One kind of broker, as kombu talks to it."""

    name: str
    """kombu's name for the transport."""
    carries: Literal["utf8", "json", "base64"] | None
    """How headers travel: in UTF-8, as texts in JSON (ASCII), or that in base64; ``None`` if not known."""
    headers_max: int | None = None
    """Bytes that all headers of a message may take together; ``None`` where they have no limit of their own."""
    message_max: int | None = None
    """Bytes that a message may take; ``None`` where that is not known, or not limited."""
    source: str = ""
    """Where the limits are from."""

    @property
    def known(self) -> bool:
        """Whether what it takes is known."""
        return self.carries is not None

    @property
    def body_max(self) -> int | None:
        """Bytes of arguments that fit a message at most; ``None`` where that is not known, or not limited."""
        return None if self.message_max is None else int((self.message_max - OTHER_HEADERS) / self.body_bytes(1))

    def body_bytes(self, size: float) -> float:
        """About how many bytes a body of *size* bytes takes: kombu's virtual transports carry it in base64."""
        return size * {"utf8": 1.0, "json": 4 / 3, "base64": 16 / 9}[self.carries or "utf8"]


_AMQP: Final = Broker(
    "amqp",
    "utf8",
    # RabbitMQ: frame_max = 131072 by default (rabbitmq.com/docs/configure), less 8 bytes around each frame; headers
    # must fit one (AMQP 0-9-1, 4.2.6: a content header is one frame).
    headers_max=131_064,
    message_max=16 * MIB,  # max_message_size of RabbitMQ 4; before, 128 MiB
    source="RabbitMQ's defaults: frame_max 131,072, max_message_size 16 MiB",
)
#: A Redis string holds 512 MB: proto-max-bulk-len (redis.io/docs, "Strings").
_REDIS: Final = Broker("redis", "json", message_max=512 * MIB, source="Redis: proto-max-bulk-len 512 MB")

_BROKERS: Final = {
    "amqp": _AMQP,
    "redis": _REDIS,
    # AWS, "Amazon SQS message quotas": 1 MiB since August 2025; older queues may still be set to 256 KiB. kombu sends
    # its JSON in base64.
    "sqs": Broker("sqs", "base64", message_max=MIB, source="Amazon SQS: 1 MiB a message"),
    # Microsoft, "Service Bus quotas": 256 KB in the Standard tier.
    "azureservicebus": Broker(
        "azureservicebus", "json", message_max=256 * KIB, source="Azure Service Bus, Standard tier: 256 KB a message"
    ),
    # Microsoft, "Scalability and performance targets for Queue Storage": 64 KiB.
    "azurestoragequeues": Broker(
        "azurestoragequeues", "json", message_max=64 * KIB, source="Azure Queue Storage: 64 KiB a message"
    ),
    # Google, "Pub/Sub quotas and limits": message size 10 MB.
    "gcpubsub": Broker("gcpubsub", "json", message_max=10_000_000, source="Google Pub/Sub: 10 MB a message"),
    # librdkafka, CONFIGURATION.md: message.max.bytes, default 1000000.
    "confluentkafka": Broker(
        "confluentkafka", "json", message_max=1_000_000, source="Kafka: message.max.bytes 1,000,000"
    ),
    # MongoDB manual, "MongoDB limits": BSON document size 16 MiB.
    "mongodb": Broker("mongodb", "json", message_max=16 * MIB, source="MongoDB: 16 MiB a document"),
    # ZooKeeper administrator's guide: jute.maxbuffer, default 0xfffff.
    "zookeeper": Broker("zookeeper", "json", message_max=0xFFFFF, source="ZooKeeper: jute.maxbuffer 1,048,575"),
    # etcd documentation, "System limits": requests up to 1.5 MiB.
    "etcd": Broker("etcd", "json", message_max=3 * MIB // 2, source="etcd: 1.5 MiB a request"),
    # Consul documentation, "KV store": kv_max_value_size, default 512 KB.
    "consul": Broker("consul", "json", message_max=512 * KIB, source="Consul: kv_max_value_size 512 KB"),
    "filesystem": Broker("filesystem", "json", source="files have no limit that matters here"),
    "memory": Broker("memory", "utf8", source="memory has no limit that matters here"),
}

#: Other names, as in kombu.transport.TRANSPORT_ALIASES.
_ALIASES: Final = {
    "amqps": "amqp",
    "pyamqp": "amqp",
    "librabbitmq": "amqp",
    "rediss": "redis",
    "sentinel": "redis",
    "kafka": "confluentkafka",
}


def broker_of(name: str | None) -> Broker:
    """The broker of this *name*: a kombu transport's, or a URL, of which only the scheme is read.

    A transport whose limits are not in the table (sqlalchemy, qpid, …) gives a broker that is not ``known``.
    """
    scheme = (name or "").partition("://")[0].partition("+")[0].strip().lower()
    known = _BROKERS.get(_ALIASES.get(scheme, scheme))
    return known or Broker(scheme or "unknown", None)


def broker_name(app: Celery) -> str:
    """The transport that *app* sends its messages by, from its configuration; nothing is connected to, or imported."""
    url: Any = app.conf.broker_write_url or app.conf.broker_url or "amqp://"  # Celery's default
    first = url if isinstance(url, str) else next(iter(url))
    return first.partition("://")[0]
