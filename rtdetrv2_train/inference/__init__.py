"""Finding objects in images: a detector, where images come from, what is written."""
