"""Where images to predict on come from, how large ones are cut into tiles, what is written. Knows no model."""
