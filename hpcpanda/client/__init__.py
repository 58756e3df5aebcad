"""SDK and command line."""
