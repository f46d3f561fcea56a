"""Lowerings: an operator or a network as ONNX, TFLite or a torch module."""
