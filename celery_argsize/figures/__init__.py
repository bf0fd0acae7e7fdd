"""Counters, histograms, sending hosts, and summaries of them. Pure."""
