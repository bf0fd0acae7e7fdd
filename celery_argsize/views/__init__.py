"""Figures and advice as text and as a page. Pure: text out, no store is read."""
