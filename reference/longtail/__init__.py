"""Losses for classes of very different size: ``long_tail_loss`` in ``reference/methods.py`` is their contract."""
