"""Chains of tasks: one reads what another is still writing."""
