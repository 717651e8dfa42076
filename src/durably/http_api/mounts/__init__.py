"""Applications of other frameworks beside the HTTP functions: where they are, their life, and what passes to them."""
