"""``durably hub``: a hub as a whole."""
