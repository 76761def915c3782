"""One epoch of MNIST as people write it: the same network, trained in the same way."""
