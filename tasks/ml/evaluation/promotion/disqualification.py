"""Findings that disqualify a champion: its accuracy says nothing about new rows, or its file cannot be trusted."""

from collections.abc import Iterable

BROKEN_PROOF = "broken_proof"
"""Code for a champion whose stored file is damaged, or whose proof does not hold. No run can have this finding."""
FINDINGS = {
    "target_given_away": "a column gives the target away",
    "scaling_fitted_beyond_training": "its scaling was fitted on the test rows, too",
    "accuracy_on_training_rows": "it was tested on the rows that it was trained on",
    BROKEN_PROOF: "its stored file is damaged, or its proof does not hold",
}
"""Disqualifying findings by their code, in words. Duplicates across splits are none of them: where two models are
compared, rows that one of them was trained on are left out."""


def disqualifying(codes: Iterable[str]) -> frozenset[str]:
    """Return those codes of findings that disqualify a champion."""
    return frozenset(FINDINGS.keys() & codes)


def describe(codes: Iterable[str]) -> str:
    """Describe disqualifying findings, as `a column gives the target away (target_given_away)`; empty without any."""
    chosen = disqualifying(codes)
    return " and ".join(f"{words} ({code})" for code, words in FINDINGS.items() if code in chosen)


def allows_replacement(champion: Iterable[str], challenger: Iterable[str]) -> bool:
    """Return whether a challenger may replace a champion without being more accurate.

    It may if the champion has a disqualifying finding that the challenger does not have, and the challenger has none
    that the champion does not have.

    Args:
        champion: codes of the champion's findings.
        challenger: codes of the challenger's findings.
    """
    return disqualifying(challenger) < disqualifying(champion)
