"""What an edge does next, from where things are: a pure function, the same in the running edge and in the simulator."""
