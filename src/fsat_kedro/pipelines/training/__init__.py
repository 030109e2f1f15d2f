"""From features to trained folds and out-of-fold scores."""
