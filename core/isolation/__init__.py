"""Handlers that own their process: attempts run in a small pool of spawned processes, and a crash ends one attempt."""
