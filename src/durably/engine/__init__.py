"""The shell around the core: partitions, commits, activities, waiters. asyncio lives here; threads do not."""
