"""Messages are answered, posts published, comments polled: ``web`` receives, ``tasks`` work, ``store`` remembers."""
