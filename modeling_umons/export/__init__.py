"""ONNX export and packed weights."""
