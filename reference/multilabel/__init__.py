"""Multi-label losses, a file for each or for a family; the contract is ``multilabel_loss`` in ``methods.py``."""
