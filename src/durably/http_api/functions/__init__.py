"""HTTP functions: user code behind routes of its own."""
