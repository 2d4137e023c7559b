"""Float super-resolution networks of the field and the loading of their checkpoints."""
