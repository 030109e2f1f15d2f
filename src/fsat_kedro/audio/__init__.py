"""Decoding of sound files, log-mel spectrograms and summary features."""
