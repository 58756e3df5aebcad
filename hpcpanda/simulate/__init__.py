"""The same planner, ledger and prediction driven by a trace instead of a machine."""
