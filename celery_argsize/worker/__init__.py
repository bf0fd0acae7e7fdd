"""Runs in a worker: measures its tasks' arguments and writes the figures to a store."""
