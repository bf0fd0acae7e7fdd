"""The project: settings, URLs, the WSGI application, and the Celery app, which Django is to load at every start."""

from .celery import app as celery_app

__all__ = ["celery_app"]
