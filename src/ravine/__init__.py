"""Ravine: the optimisation layer of deep learning for PyTorch."""
