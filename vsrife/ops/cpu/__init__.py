"""CPU kernels, compiled by numba and LLVM."""
