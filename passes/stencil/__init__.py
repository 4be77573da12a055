"""The algebra of affine stencils. NumPy only; knows no ONNX."""
