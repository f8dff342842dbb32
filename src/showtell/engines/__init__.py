"""What answers search's one question: ONNX Runtime and PyTorch."""
