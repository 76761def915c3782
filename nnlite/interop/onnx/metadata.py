"""Names of the metadata entries in the files that nnlite writes."""

# Whether the model was in training mode.
TRAINING = "nnlite.training"
