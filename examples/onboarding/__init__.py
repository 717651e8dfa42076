"""Function chaining: a new user gets an account, a home and a mail, one after the other. Read `app.py` first."""
