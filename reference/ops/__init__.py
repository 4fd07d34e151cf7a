"""The eager definition of every operation that has fast kernels, in plain PyTorch: any float dtype, any device."""
