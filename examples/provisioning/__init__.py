"""Sub-orchestrations: a fleet of 1,000 devices is provisioned by groups, with progress. Read `app.py` first."""
