"""What clients see, byte for byte: frames of RFC 6455, messages as JSON, and the rules of their fields."""
