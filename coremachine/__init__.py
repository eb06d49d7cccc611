"""CoreMachine: jobs of sequential stages of parallel tasks."""
