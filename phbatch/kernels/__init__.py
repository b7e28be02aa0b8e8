"""Pure numerical kernels: NumPy arrays in, NumPy arrays out, no I/O."""
