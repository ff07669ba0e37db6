"""Runtimes: torch, or a graph exported for OpenVINO, ONNX Runtime or TensorRT. Normalised images in, logits out."""
