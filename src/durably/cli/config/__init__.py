"""``durably config``: what is set, and where."""
