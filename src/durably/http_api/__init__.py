"""What a hub says over HTTP: the management API of Durable Functions. Starlette lives here and nowhere below."""
