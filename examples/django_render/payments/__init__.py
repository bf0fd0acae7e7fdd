"""Paying drivers: tasks that work, views that hand work over and show what came of it. No database, to stay small."""
