"""Mixed precision: whether bfloat16 pays off on this machine, for `precision: auto` in a recipe.

The products and convolutions of a training step are in bfloat16, and so are their results until they meet a float32.
Weights, their average, the optimiser, an LSTM's cell, softmax, layer norm and losses stay float32, and so do cached
features and validation.
"""

import platform

import torch


def has_bfloat16(cpu: bool) -> bool:
    """Whether the hardware multiplies in bfloat16: emulated, it is slower than float32.

    Args:
        cpu: use no GPU.
    """
    if not cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On a CPU only oneDNN is fast. On x86 it says yes for every processor with AVX-512.
    if torch.backends.mps.is_available() or not torch.backends.mkldnn.is_available():
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return supported and (arm or torch.cpu._is_avx512_bf16_supported())  # AMX implies AVX512-BF16
