"""How user code is reached: the implementations of `durably.engine.executor`."""
