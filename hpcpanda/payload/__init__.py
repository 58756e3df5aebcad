"""The contract with user code, its three forms, and the checker."""
