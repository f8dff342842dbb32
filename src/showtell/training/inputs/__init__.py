"""The inputs of a training step: batches of captions, and the features or pictures of their images."""
