"""The management API under the paths, names and status codes of Durable Functions (its extension, version 2)."""
