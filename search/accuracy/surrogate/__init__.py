"""The surrogate: top-1 from the operators of a network."""
