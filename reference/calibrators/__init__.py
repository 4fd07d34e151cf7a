"""Post-hoc calibrators, one file each. Fitted on held-out logits, each returns a map of logits to log-probabilities."""
