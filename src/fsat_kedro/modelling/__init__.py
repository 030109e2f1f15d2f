"""Networks, the batches they are trained on, and their training."""
