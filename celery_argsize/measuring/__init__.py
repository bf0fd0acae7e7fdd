"""Sizes one value and reads one argsrepr. Pure, and the only code that a task waits for."""
