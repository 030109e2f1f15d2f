"""Kedro hooks of the project."""
