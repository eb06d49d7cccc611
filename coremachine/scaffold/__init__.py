"""What `coremachine init` and `coremachine new` write: a project of a user's own, and further jobs in it."""
