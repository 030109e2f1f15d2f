"""From trimmed sound to log-mels and projected summary features."""
