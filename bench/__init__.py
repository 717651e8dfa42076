"""Measures durably with the workloads that its peers were measured with; see README.md."""
