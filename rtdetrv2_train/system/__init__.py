"""What this process may use of the machine, and how it uses memory."""
