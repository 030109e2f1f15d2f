"""Sound files to waves, log-mel spectrograms and summary features."""
