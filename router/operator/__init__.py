"""The command line of operators, and the socket on which a running server answers it."""
