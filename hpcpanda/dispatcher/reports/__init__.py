"""What operators and user interfaces are told of a dispatcher: figures, and that something has changed."""
