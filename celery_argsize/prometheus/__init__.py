"""Figures as Prometheus metrics, and an HTTP server for them."""
