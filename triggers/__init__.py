"""What wakes the app: HTTP, queues, timers. Thin: parse, call core, answer. Nothing heavy is imported at cold start."""
