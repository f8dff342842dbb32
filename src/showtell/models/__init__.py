"""The captioning models, in PyTorch: encoders/, then one file a paper."""
