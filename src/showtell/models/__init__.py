"""The captioning models, in PyTorch: encoders/, and one file per paper."""
