"""Human interaction: an expense waits for a decision, with a reminder and a deadline. Read `app.py` first."""
