"""Reading and writing states, checkpoints and models."""
