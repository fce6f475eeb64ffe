"""Exports for other runtimes: ONNX, torch.export and timm."""
