"""Tests of the supervisor and the fronts. Those of a front run the real process between a client and a fake worker."""
