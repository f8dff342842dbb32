"""showtell trains the classic image-captioning models, and captions images with them.

    import showtell
    captioner = showtell.load("runs/sat/model")
    for caption in captioner("dog.jpg", num=3):
        print(caption.text, caption.log_prob)

The names are imported when they are first used: ``import showtell`` alone loads neither NumPy nor PyTorch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "__version__", "load"]

if TYPE_CHECKING:
    from showtell.captioner import Caption, Captioner, load


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'showtell' has no attribute {name!r}")
    from showtell import captioner

    return getattr(captioner, name)


def __dir__() -> list[str]:
    """The public names, so that a shell completes them before they are imported."""
    return sorted(__all__)
