"""Event streaming: range policy, segments, journal, recovery."""
