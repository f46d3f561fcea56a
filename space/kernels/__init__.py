"""Kernels: one launch of a runtime each, how each is lowered, and networks made of them."""
