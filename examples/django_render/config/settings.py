"""Django's settings, and Celery's: those that begin with ``CELERY_``. What differs by place is in the environment."""

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
TIME_ZONE = "UTC"  # Beat's as well. Django's own default is America/Chicago.

# One Redis for messages, results, the cache and the figures of celery_argsize.
REDIS_URL = _required("REDIS_URL")
if os.environ.get("REQUIRE_REDIS_SSL", "").lower() in {"1", "true", "yes", "on"}:
    REDIS_URL = REDIS_URL.replace("redis://", "rediss://", 1)

# Certificates are checked. Of a bare rediss:// URL, Celery would check none for messages, and refuse it for results.
REDIS_TLS = None
if REDIS_URL.startswith("rediss://"):
    REDIS_TLS = {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": os.environ.get("REDIS_CA_FILE") or None,  # None: the authorities that the system trusts
    }

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": REDIS_TLS or {},
    }
}

# Celery itself lets environment variables of these two names win, unless they are empty.
CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = REDIS_URL
CELERY_BROKER_USE_SSL = REDIS_TLS
CELERY_REDIS_BACKEND_USE_SSL = REDIS_TLS
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"retry_policy": {"timeout": 5}}  # seconds that a view waits for a lost Redis
CELERY_RESULT_EXPIRES = 60 * 60

CELERY_TASK_TIME_LIMIT = 5 * 60
CELERY_TASK_SOFT_TIME_LIMIT = 4 * 60

# For an instance with 512 MB.
CELERY_WORKER_CONCURRENCY = 2
CELERY_WORKER_MAX_TASKS_PER_CHILD = 100
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 150 * 1024  # KiB: 150 MB

CELERY_ARGSIZE_LARGE_TASK_CHARS = 4096  # tasks with longer arguments are logged

PAYOUTS_EVERY = os.environ.get("PAYOUTS_EVERY")  # seconds, to see it happen; unset: once a day
CELERY_BEAT_SCHEDULER = "celery.beat.Scheduler"  # in memory: Render empties the disk at every deploy
CELERY_BEAT_SCHEDULE = {
    "daily-driver-payouts": {
        "task": "payments.tasks.process_daily_payouts",
        "schedule": float(PAYOUTS_EVERY) if PAYOUTS_EVERY else crontab(hour=1, minute=0),
    }
}
