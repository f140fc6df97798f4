"""Where users, chats and messages are kept, and the tools for a data directory. ``shard_store`` says what every store promises."""
