"""The commands of ``celery argsize``, a module each; ``group`` finds them by their names."""
