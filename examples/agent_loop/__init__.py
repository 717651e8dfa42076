"""A durable agent: any model, tools with real effects, and a human who has to approve the dangerous. Read `app.py` first."""
