"""The Durable Task protocol over gRPC: clients and workers of the published SDKs are served by a host."""
