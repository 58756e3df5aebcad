"""What a simulation found, drawn; matplotlib is imported late."""
