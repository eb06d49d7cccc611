"""Small changes to the pure modules, each of which some test must notice: `make mutants`."""
