"""What FastChat means: users, chats, messages and presence. `shard` puts the parts together, `ports` is what they ask of the outside."""
