"""Losses that train calibrated models, one file a family; those of ``reference.losses`` stand beside them on boards."""
