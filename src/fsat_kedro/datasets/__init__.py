"""Formats on disk that Kedro has no dataset for: one class a file."""
