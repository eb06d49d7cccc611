"""Runs the tasks of one message: claims them, calls their handlers, writes their outcomes."""
