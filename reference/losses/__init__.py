"""Multiclass losses, one file each (or a family that shares a formula). Contributors work here."""
