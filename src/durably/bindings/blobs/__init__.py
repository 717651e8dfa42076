"""Stores of blobs: a folder, Azure Blob Storage, S3. The seam, names as data, connections."""
