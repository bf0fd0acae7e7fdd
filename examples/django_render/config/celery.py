"""The Celery app: configured by Django's settings, with limited connections, and with measured arguments."""

import os

from celery import Celery

import celery_argsize

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("payouts")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(celery_argsize.connection_settings())
app.autodiscover_tasks()

celery_argsize.install(app)
celery_argsize.set_repr_limits(app, {"payments.tasks.pay_driver": 8192})  # characters: some drivers have many rides
