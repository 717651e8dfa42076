"""Long waits: a clinic reminds of a consent form after 48 hours, and gives up after 7 days. Read `app.py` first."""
