"""Training, in PyTorch: recipes, batches, losses, stages, checkpoints."""
