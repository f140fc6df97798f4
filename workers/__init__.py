"""A worker: one process that owns the users of its slots, and everything about them.

`worker` puts the parts together: sockets come in through `handover`, talk through `connection`, the rules are ``core.chat.shard``'s, other
shards are reached over `bus`, and what must be kept goes to `store`.
"""
