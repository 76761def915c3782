"""The training loop, its callbacks and what it measures."""
