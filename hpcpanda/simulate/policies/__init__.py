"""Policies that are compared with ours, each with its source."""
