"""The mails of an order, over weeks and a moody mail server, each one once. Read `app.py` first."""
