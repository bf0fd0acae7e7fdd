"""Figures and advice as text, JSON and an HTML page. Pure: no store is read."""
