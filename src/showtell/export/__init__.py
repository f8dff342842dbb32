"""From a trained model to ONNX graphs, their weights, and int8 arithmetic."""
