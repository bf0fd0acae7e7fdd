"""A music library with a measured Celery app: ``app`` has the tasks, ``catalog`` the files and their tags."""
