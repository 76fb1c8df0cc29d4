"""A deterministic world seen by six cameras, with exact ground truth."""
