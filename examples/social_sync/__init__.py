"""Answers messages, publishes posts and polls comments: ``web`` receives, ``tasks`` works, ``store`` has the state."""
