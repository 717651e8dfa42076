"""``durably entities``: look at entities, signal and call them, and release locks that nobody holds any more."""
