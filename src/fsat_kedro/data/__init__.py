"""Datasets of clips and labels: layouts, downloads, folds, ragged arrays."""
