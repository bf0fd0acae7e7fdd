"""Checks: pure functions from facts to outcomes."""
