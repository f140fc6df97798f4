"""The targets of ``fuzz``: their corpus in the repository, a short run, and that they would notice what is wrong."""
