"""What the commands do: one readable function each."""
