"""Values to JSON text and back, typed by annotations. Pure: no I/O, clock, randomness or logging."""
