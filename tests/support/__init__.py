"""Helpers that several tests share: servers, workers, apps, a browser."""
