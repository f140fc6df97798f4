"""How the number of users goes over a run, one file for each ``make load SHAPE=...``; locust takes it beside the locustfile."""
