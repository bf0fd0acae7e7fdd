"""Where the figures are kept: ``base`` says what a store is."""
