"""What is in a data set and what is wrong with it: one file a kind of check. Knows no model."""
