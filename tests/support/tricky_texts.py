"""Texts that look like what saferepr writes around texts, or in place of what it cuts."""

from __future__ import annotations

TRICKY = ["...", "Loading...", "a...b", "[...]", "{...}", "', ...", "it's", "'...'", "\\", ", ...]", "...."]
