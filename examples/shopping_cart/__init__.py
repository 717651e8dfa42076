"""Shopping carts as entities: reminders, checkout under locks, states that migrate and expire. Read `app.py` first."""
