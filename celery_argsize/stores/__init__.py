"""Where figures are kept: in memory or in Redis. ``base`` defines a store."""
