"""Settings: where they come from, and how texts of code name them."""
