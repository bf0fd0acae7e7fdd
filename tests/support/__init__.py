"""Fixtures and rigs that several tests use: servers, workers, apps, a browser."""
