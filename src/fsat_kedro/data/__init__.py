"""Clips and labels: where they come from, and how arrays of them are kept."""
