"""From an ONNX node to what it computes."""
