"""A batch with bounded fan-out: a CSV file is booked into a database, and resumed after a crash. Read `app.py` first."""
