"""The public functions that read figures, advise and reset."""
