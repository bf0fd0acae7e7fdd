"""The Django project. It imports the Celery app, so that Django loads it at every start."""

from .celery import app as celery_app

__all__ = ["celery_app"]
