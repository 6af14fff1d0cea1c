"""Tensor operations: a reference in plain PyTorch, kernels for CPU and CUDA."""
