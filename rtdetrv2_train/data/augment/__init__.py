"""Augmentation, and the epochs in which it is active."""
