"""Where the figures are kept: ``base`` says what a store is, ``memory`` and ``redis`` are the two there are."""
