"""The clean API beside the one of Durable Functions: typed, described by OpenAPI, errors as problem details."""
