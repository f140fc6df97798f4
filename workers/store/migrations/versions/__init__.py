"""One file a revision, in the order that each gives as `down_revision`."""
