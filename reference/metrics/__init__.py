"""Metrics of predictions, one file a family: pure functions of tensors."""
