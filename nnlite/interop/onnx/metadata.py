"""What nnlite notes in the files that it writes."""

# Whether the model was in training mode.
TRAINING = "nnlite.training"
