"""showtell trains the classic image-captioning models, and captions images with them."""

__version__ = "0.1.0"
