"""The batch system through PSI/J: any of its executors, by the name in the site file."""
