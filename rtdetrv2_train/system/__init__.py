"""The machine: cores, memory and shared memory that a process may use, and the memory allocator."""
