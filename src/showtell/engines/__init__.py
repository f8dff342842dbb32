"""What answers search's one question: ONNX Runtime, OpenVINO and PyTorch."""
