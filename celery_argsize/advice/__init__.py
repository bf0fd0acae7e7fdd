"""Advice: what cures cut reprs, what it costs, and whether it is in force."""
