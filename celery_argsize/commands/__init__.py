"""The commands of ``celery argsize``, a module each; ``cli`` finds them by their names."""
