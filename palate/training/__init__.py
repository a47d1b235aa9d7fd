"""One training loop for every system that learns by gradients."""
