"""What work costs and what interruptions lose, without drawing every event."""
