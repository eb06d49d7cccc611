"""Pages for people, below `/api/ui`: made on the server, with a script that refreshes them and listens to keys."""
