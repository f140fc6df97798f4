"""RFC 6455, case by case, against the real processes: see ``docs/rfc6455.md``."""
