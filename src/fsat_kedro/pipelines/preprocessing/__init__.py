"""From raw files to a table of clips and their trimmed sound."""
