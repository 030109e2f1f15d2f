"""Scores, misclassified clips, plots and the report."""
