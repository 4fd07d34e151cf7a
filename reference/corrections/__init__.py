"""Training corrections: what wraps a loss. One file a family; each registers itself with ``@correction``."""
