"""What a training step is given: batches of captions, and the features or pictures of their images."""
