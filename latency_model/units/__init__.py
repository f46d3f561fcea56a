"""Operators and kernels as what they share, and regressors over them."""
