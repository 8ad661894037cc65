"""Networks as files that are handed on: weights with checksums, and ONNX for programs without PyTorch."""
