"""Figures and advice as text, JSON and an HTML page. No store is read."""
