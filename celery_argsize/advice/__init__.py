"""Advice: what cures cut reprs, what that costs, and whether it is in force."""
