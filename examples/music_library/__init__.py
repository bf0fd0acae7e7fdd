"""A music library whose Celery app is measured: ``app`` has the tasks, ``catalog`` the files and their tags."""
