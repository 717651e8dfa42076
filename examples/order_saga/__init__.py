"""An order saga that survives `kill -9`. Run it with `make demo`; read `app.py` first, then `worker.py`."""
