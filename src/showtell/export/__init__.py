"""A trained model -> ONNX graphs, their weights, and int8 arithmetic."""
