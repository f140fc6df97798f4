"""The admin port: health, status, metrics and the dashboard. It only reads."""
