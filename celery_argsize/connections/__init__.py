"""How many Redis connections a configuration opens at most, and settings that fit."""
