"""What runs in a worker: install, measure each task, count, flush."""
