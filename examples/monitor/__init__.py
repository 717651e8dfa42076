"""An eternal monitor: watches a file or URL round after round, for years, until an event ends it. Read `app.py` first."""
