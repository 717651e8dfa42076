"""A hub in one SQLite file: one partition, one host at a time, any number of client processes."""
