"""Boxes over time: tracking by detection in a frame that stays put."""
