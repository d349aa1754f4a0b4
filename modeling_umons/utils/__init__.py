"""Helpers shared by all rooms: atomic files, tables, worker processes."""
