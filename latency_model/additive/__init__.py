"""The additive model over kernels: whole networks alone teach the times of their kernels."""
