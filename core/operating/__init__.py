"""What keeps jobs healthy and what operators do: janitor, control, dead letters, explanation."""
