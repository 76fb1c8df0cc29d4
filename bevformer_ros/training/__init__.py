"""Learning: losses and the assignment of ground truth to predictions."""
