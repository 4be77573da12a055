"""The variants of each family: one module a family, with the table VARIANTS; none imports torch."""
