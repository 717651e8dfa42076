"""The provider contract and the providers. A store is told flat row changes and never decodes an event."""
