"""Multi-label losses, a file for each or for a family; ``multilabel_loss`` in ``reference/methods.py`` is the contract."""
