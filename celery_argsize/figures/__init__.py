"""Counters, histograms and summaries. Pure."""
