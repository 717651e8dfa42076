"""What tests lean on: simulation, store conformance, virtual time. Shipped for users and for authors of providers."""
