"""Any network file, cut into the kernels that a runtime launches."""
