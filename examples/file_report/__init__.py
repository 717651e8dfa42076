"""Fan-out and fan-in: every file of a folder is looked at side by side, one report comes out. Read `app.py` first."""
