"""Tells whoever starts and stops hosts how many there should be."""
