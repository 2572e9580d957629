"""Kernels of the losses over a row: loss and gradient in one visit, on the CPU."""
