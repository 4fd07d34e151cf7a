"""Compressors, one file each: ways to store a trained network in fewer bits or with fewer weights."""
