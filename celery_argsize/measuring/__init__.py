"""Measures arguments: their size as JSON, and what Celery cut from their repr. No I/O."""
