"""What each family of the zoo consists of: a table per family, without torch."""
