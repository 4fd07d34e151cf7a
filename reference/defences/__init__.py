"""Defences: ways to train networks, or to combine them, so that attacks on their inputs fail."""
