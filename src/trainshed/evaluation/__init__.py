"""Metrics of rankings and answers, with intervals, paired tests, exchange formats and reports."""
