"""Every error that this package raises on purpose.

All are ``ArgsizeError``. The text says which setting, value or server is meant and what to do. It never has a password
or the value of an argument in it.
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
