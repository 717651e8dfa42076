"""A batch of jobs from a queue table: started, looked at and cancelled by clients elsewhere. Read `app.py` first."""
