"""Calls of authors' code, and checks of what it declares and returns."""
