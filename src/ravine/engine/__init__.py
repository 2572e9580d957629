"""Runs a scalar equation over tensors: reference, CPU and GPU, and the choice between them."""
