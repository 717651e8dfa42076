"""What starts work besides clients and requests: queues of the hub, whose messages a built-in orchestrator hands out."""
