"""What nodes cost on a target."""
