"""Reading job traces of batch systems, with the flaws that they have in the wild."""
