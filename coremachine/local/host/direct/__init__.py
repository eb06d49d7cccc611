"""Receiving from this project's own broker without the SDK: one connection for all messages of an entity.

The SDK asks for a message at a time and waits for the answer to each settlement. That costs a thread and a connection
per message in flight, and two thirds of a millisecond per message. Here requests and settlements of many messages
travel together. With any other broker the SDK is used: `choice.py` finds out.
"""
