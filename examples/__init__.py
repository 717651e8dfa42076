"""Examples: each folder is a program to read and to run, and each is run by a test."""
