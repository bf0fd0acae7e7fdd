"""Every error that this package raises on purpose.

All are ``ArgsizeError``. The text names the setting, value or server, and what to
do. It never shows a password or an argument.
"""

from __future__ import annotations


class ArgsizeError(Exception):
    """celery_argsize could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class ConfigError(ArgsizeError, ValueError):
    """A setting is unknown or has a value that cannot work."""


class StoreError(ArgsizeError):
    """The store could not be read or written."""


class SchemaError(StoreError):
    """The figures in Redis were written by a version with another schema."""
