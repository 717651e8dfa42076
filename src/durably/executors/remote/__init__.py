"""Code that runs in other processes: workers of the Durable Task SDKs, which fetch their work over gRPC."""
