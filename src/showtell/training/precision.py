"""Mixed precision: whether bfloat16 pays on this machine, which is what `precision: auto` of a recipe asks.

In bfloat16 are the products and convolutions of a training step, and what follows from them until a float32 is met.
Weights, their average, the optimiser, an LSTM's cell, softmax, layer norm and losses stay float32, and so do cached
features and validation.
"""

import platform

import torch


def has_bfloat16(cpu: bool) -> bool:
    """Whether the hardware multiplies bfloat16 numbers: where they are emulated, they are slower than float32.

    Args:
        cpu: whether no GPU is to be used.
    """
    if not cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN has PyTorch's only fast ones on a processor. On x86 it says yes to all that have AVX-512.
    if torch.backends.mps.is_available() or not torch.backends.mkldnn.is_available():
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return supported and (arm or torch.cpu._is_avx512_bf16_supported())  # with AMX comes AVX512-BF16
