"""The mathematics of every method: plain PyTorch, readable against the paper. Never imports the harness."""
