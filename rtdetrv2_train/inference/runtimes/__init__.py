"""Software that runs exported models, one file each: opens a file as a function of NumPy's arrays."""
