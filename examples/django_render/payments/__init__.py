"""Pays drivers: tasks do the work, views send tasks and show results. To stay small, there is no database."""
