"""The edge and its dispatcher as far as planning sees them; what decides is the production code."""
