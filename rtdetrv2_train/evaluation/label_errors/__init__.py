"""Labels that are likely to be wrong, found by what a detector says of them."""
