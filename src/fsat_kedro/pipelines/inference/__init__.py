"""From trained folds to ranked tags of the test clips and their scores."""
