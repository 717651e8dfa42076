"""User code as the engine runs it: what is registered, the context it sees, the loop that repeats it, and the replay."""
