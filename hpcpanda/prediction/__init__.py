"""Pure rules of learning from what was seen: cost of events, walltime and memory of jobs, hazards, queue waits."""
