"""What the dispatcher remembers: tables, and the unit of work that reads and changes them."""
