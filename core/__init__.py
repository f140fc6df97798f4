"""What FastChat *means*, and what its processes have in common.

Read first ``core.wire.protocol``, the words of the wire; then ``core.chat.commands``, what a client may say, and from there the rooms of
``core.chat``: ``messages`` and ``delivery`` are the way of a message. ``core.chat.shard`` puts the rooms together; ``core.chat.ports`` and
``core.chat.store`` are what they ask of the outside.

* ``core.wire``: what clients see, byte for byte
* ``core.chat``: users, chats, messages, presence; without I/O, a clock or chance, which are ports
* ``core.auth``: tokens that prove who a user is
* ``core.process``: what every process is made of: settings, logs, metrics; only here is I/O allowed
* ``core.reference``: the protocol as tables, for documentation and tests
* ``core.placement`` says where a user lives, ``core.measures`` and ``core.events`` how something is measured and logged

Nothing in here may import ``router`` or ``workers``. A comment such as (D7) cites one of docs/decisions.md.
"""
