"""A hub behind a host that serves HTTP: the management API of Durable Functions, asked by a client."""
