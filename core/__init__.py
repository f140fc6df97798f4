"""What FastChat *means*: the protocol, without a socket, an event loop or a clock.

Bytes and times come in as arguments, effects go out through the ports in ``core.ports``; so every rule of the protocol can be
tested with plain function calls. Nothing in here may import ``router`` or ``workers``, nor anything that does I/O.

A comment such as (D7) cites one of those rules; docs/decisions.md has them, each with its reason.
"""
