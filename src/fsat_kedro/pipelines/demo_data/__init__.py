"""Make the synthetic data set."""
