"""Looks at Redis, workers, the broker and the machine: all of the doctor's I/O."""
