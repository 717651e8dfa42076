"""Parallel checks, routing by risk, a human with a time-out, and logs that say each thing once. Read `app.py` first."""
