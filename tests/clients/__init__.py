"""What both clients have to live through; see README.md beside this file."""
