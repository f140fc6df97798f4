"""How users prove who they are: tokens, and the keys that they are checked with."""
