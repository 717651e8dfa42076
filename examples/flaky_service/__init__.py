"""Retries and error handling, against an HTTP service that fails on purpose. Read `app.py` first, then `service.py`."""
