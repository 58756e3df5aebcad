"""What is free now: probes that ask the batch system for backfill windows."""
