"""``durably run --dev``: a parent that watches and holds the port, and a child that serves the code as it is now."""
