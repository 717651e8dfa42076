"""A media pipeline: renditions in processes, moderation, and a human who looks at the doubtful. Read `app.py` first."""
