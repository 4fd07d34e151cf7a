"""Attacks on classifiers: changes of an input, within a ball around it, that a network is meant to get wrong."""
