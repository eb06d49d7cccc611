"""Webhooks: addresses that receive events, and the sending of these."""
