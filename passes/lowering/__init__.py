"""From an affine form to ONNX nodes."""
