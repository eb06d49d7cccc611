"""What the engine reports about its work while it works, to one listener, which most processes do not have."""
