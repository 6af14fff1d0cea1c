"""CUDA kernels in Triton."""


class KernelError(RuntimeError):
    """A kernel does not compile or cannot be started; plain PyTorch can do its work."""
