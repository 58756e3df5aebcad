"""The login-node service: pull, plan, submit, watch, commit, merge, report."""
