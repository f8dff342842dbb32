"""The engines that run a model for search: ONNX Runtime, OpenVINO and PyTorch."""
