"""Kernels: the hot loops on plain tensors; each has a torch reference, and a numba version where the CPU gains."""
