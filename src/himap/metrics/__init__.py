"""Scores as pure functions of predictions and references: no model, no files, nothing heavy at import.

Shares (accuracy, precision, ...) lie in [0, 1]; MME counts in its own points and CIDEr in points of 100,
as their papers print them.
"""
