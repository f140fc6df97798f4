"""Accepts clients, serves the chat page, and hands the sockets of clients that have said HELLO over to workers."""
