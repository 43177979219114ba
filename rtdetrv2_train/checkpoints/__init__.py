"""Reading a detector's weights, whoever wrote them, and loading them into a model."""
