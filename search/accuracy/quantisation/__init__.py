"""What quantisation changes of a network's top-1."""
