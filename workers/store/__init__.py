"""Where users, chats and messages are kept; every implementation keeps the promises of ``core.ports.Store``."""
