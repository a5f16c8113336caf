"""Cases that do not hold yet, and why. `make cases` lists them apart, and says when one holds."""

REASONS: dict[str, tuple[str, ...]] = {}
"""Names of cases by the reason why they do not hold."""

KNOWN = {name: reason for reason, names in REASONS.items() for name in names}
"""The reason by the name of the case."""
