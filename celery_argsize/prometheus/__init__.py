"""Figures as Prometheus metrics, and a server for them."""
