"""Networks as files to hand on: weights with checksums, ONNX for programs without PyTorch."""
