"""Predictions of an ensemble, and tags for any sound."""
