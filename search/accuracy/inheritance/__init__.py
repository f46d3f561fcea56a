"""Networks whose training begins from the weights of another network."""
