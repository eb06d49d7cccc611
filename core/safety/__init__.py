"""What may be logged, stored or shown: no credentials, bounded and readable text."""
