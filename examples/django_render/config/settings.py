"""Django's settings. Those that begin with ``CELERY_`` are Celery's. Environment variables set what differs by host."""

import os

from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured


def _required(name: str) -> str:
    if value := os.environ.get(name):
        return value
    message = f"set {name} in the environment of every service: web, worker and Beat"
    raise ImproperlyConfigured(message)


SECRET_KEY = _required("SECRET_KEY")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", os.environ.get("RENDER_EXTERNAL_HOSTNAME", "")]
INSTALLED_APPS = ["payments"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "config.urls"
USE_TZ = True
TIME_ZONE = "UTC"  # Beat uses it too. Django's default is America/Chicago.

REQUIRE_REDIS_SSL = os.environ.get("REQUIRE_REDIS_SSL", "").lower() in {"1", "true", "yes", "on"}


def _secure(url: str) -> str:
    return url.replace("redis://", "rediss://", 1) if REQUIRE_REDIS_SSL else url


def _tls(url: str) -> dict[str, object] | None:
    """TLS options for *url* that check certificates.

    Without options, Celery checks no certificates for messages, and refuses a rediss:// URL for results.
    """
    if not url.startswith("rediss://"):
        return None
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": os.environ.get("REDIS_CA_FILE") or None,  # None: the CAs that the system trusts
    }


# One Redis for messages, results, the cache and the figures of celery_argsize. Messages and results may have their own.
REDIS_URL = _secure(_required("REDIS_URL"))

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": _tls(REDIS_URL) or {},
    }
}

# Celery itself prefers the environment variables of these names. So take the URLs from there, and TLS by these URLs.
CELERY_BROKER_URL = _secure(os.environ.get("CELERY_BROKER_URL") or REDIS_URL)
CELERY_RESULT_BACKEND = _secure(os.environ.get("CELERY_RESULT_BACKEND") or REDIS_URL)
CELERY_BROKER_USE_SSL = _tls(CELERY_BROKER_URL)
CELERY_REDIS_BACKEND_USE_SSL = _tls(CELERY_RESULT_BACKEND)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"retry_policy": {"timeout": 5}}  # seconds that a view waits for Redis
CELERY_RESULT_EXPIRES = 60 * 60

CELERY_TASK_TIME_LIMIT = 5 * 60
CELERY_TASK_SOFT_TIME_LIMIT = 4 * 60

# For an instance with 512 MB.
CELERY_WORKER_CONCURRENCY = 2
CELERY_WORKER_MAX_TASKS_PER_CHILD = 100
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 150 * 1024  # KiB: 150 MB

CELERY_ARGSIZE_LARGE_TASK_CHARS = 4096  # log tasks with longer arguments

PAYOUTS_EVERY = os.environ.get("PAYOUTS_EVERY")  # seconds; once a day if not set
CELERY_BEAT_SCHEDULER = "celery.beat.Scheduler"  # keeps its state in memory, as Render clears the disk at every deploy
CELERY_BEAT_SCHEDULE = {
    "daily-driver-payouts": {
        "task": "payments.tasks.process_daily_payouts",
        "schedule": float(PAYOUTS_EVERY) if PAYOUTS_EVERY else crontab(hour=1, minute=0),
    }
}
