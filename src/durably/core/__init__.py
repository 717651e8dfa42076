"""Pure arithmetic of the engine: given messages, decisions and a time, what happens. No I/O, clock or randomness."""
