"""The protocol as tables to read: for the documentation, the schema and the tests."""
